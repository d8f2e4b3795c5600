"""What is left after `counterfactual` against the error of the causal model that makes the counterfactuals.

    python benchmarks/debias/quality.py runs/demo0 runs/demo0-eighth ...     a minute or two a run

Runs are of the quickstart preset, whose image mechanism may be trained for fewer steps:

    python train.py preset=quickstart run=runs/demo0-eighth train.stages=[attributes,image] train.image.steps=312

Writes the key `quality` of results.json and docs/debias_quality.png. Exact counterfactuals are measured beside
the models, once a seed; the network that embeds is that of run.py.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from run import ERASED, HERE, KEPT, SUBJECTS, classifier, embedded, exact_error, keep

from causalcxr.data.preparation import open_cohort
from causalcxr.debias.embedding import counterfactual_embeddings, embed_split, values_to_average
from causalcxr.debias.parts import split_patients
from causalcxr.debias.protocol import Subject, measure
from causalcxr.debias.registry import make_eraser
from causalcxr.metrics.truth import find_truth
from causalcxr.runs import load, open_run
from causalcxr.values import decode

ROWS = 4000
PICTURE = HERE.parents[1] / "docs" / "debias_quality.png"
COLOURS = {"sex": "#2c5f8a", "race": "#d9822b"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="*", help="none: draw what is known")
    runs = parser.parse_args().runs
    seeds = {run: open_run(run).config.train.seed for run in runs}
    found: list[dict[str, Any]] = []
    for seed in dict.fromkeys(seeds.values()):
        for one in of_seed([run for run in runs if seeds[run] == seed], seed):
            print(json.dumps(one), flush=True)
            found.append(one)
            keep({"quality": found})
    draw(json.loads((HERE / "results.json").read_text())["quality"])


def of_seed(runs: list[Path], seed: int) -> Iterator[dict[str, Any]]:
    """Exact error and strongest probe's leak of exact counterfactuals, then of each run's."""
    opened = open_run(runs[0])
    cohort = open_cohort(replace(opened.config.data, test=SUBJECTS), opened.graph)
    test, truth = cohort.split("test").subset(np.arange(ROWS)), find_truth(cohort)
    network = classifier(opened.config, cohort, opened.graph[KEPT], cohort.split("train"), seed)
    values = values_to_average(opened.graph, ERASED, cohort.split("train").attributes)
    columns = {name: np.array(decode(opened.graph[name], test.attributes[name])) for name in (*ERASED, KEPT)}
    z = embed_split(network, test)

    def leak(pairs: np.ndarray) -> dict[str, float]:
        rows = embedded(z, {name: columns[name] for name in ERASED}, {KEPT: columns[KEPT]}, pairs)
        subject = Subject(rows, split_patients(rows.patients, seed), seed)
        of = measure(subject, subject.fit(make_eraser("counterfactual")), more=False).leak
        return {name: max(interval.value for interval in by_probe.values()) for name, by_probe in of.items()}

    exact = leak(counterfactual_embeddings(None, test, network, values, truth))
    yield {"seed": seed, "steps": None, "exact_error": dict.fromkeys(ERASED, 0.0), "leak": exact}
    for run in runs:
        scm, config = load(run), open_run(run).config.train
        error = {name: exact_error(scm, test, name) for name in ERASED}
        found = leak(counterfactual_embeddings(scm, test, network, values))
        yield {"seed": seed, "steps": config.image.steps, "exact_error": error, "leak": found}


def draw(found: list[dict[str, Any]]) -> None:
    """A dot for each attribute and model; exact counterfactuals are hollow."""
    drawn = Figure(figsize=(5.6, 3.6), facecolor="white", layout="constrained")
    axes = drawn.add_subplot()
    for name, colour in COLOURS.items():
        x, y = ([one[key][name] for one in found] for key in ("exact_error", "leak"))
        filled = [colour if one["steps"] else "white" for one in found]
        axes.scatter(
            x, y, 34, filled, edgecolor=colour, label=f"{name} (correlation {np.corrcoef(x, y)[0, 1]:.2f})"
        )
    axes.axhline(0.5, color="#1d2733", linewidth=0.8, linestyle=":")
    axes.set_xlabel("exact error of the causal model under do (0 exact, 1 does nothing)", fontsize=8)
    axes.set_ylabel("leak: AUROC of the strongest probe", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.legend(handles, labels, fontsize=8, frameon=False, loc="upper left")
    for handle, colour in zip(legend.legend_handles, COLOURS.values(), strict=True):
        handle.set_facecolor(colour)  # pyright: ignore
    drawn.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
