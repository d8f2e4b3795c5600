"""Where a learnt model falls short its own error says why: what the counterfactual eraser leaves, by exact error.

    python benchmarks/debias/quality.py runs/demo0 runs/demo0-counterfactual runs/short ...

Runs of one cohort and different quality, on 4,000 subjects and the embedding of one network. Writes the key
`quality` of results.json, and docs/debias_quality.png.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from run import ERASED, HERE, KEPT, classifier, embedded, exact_error, keep

from causalcxr.data.preparation import open_cohort
from causalcxr.debias.embedding import counterfactual_embeddings, embed_split, values_to_average
from causalcxr.debias.parts import split_patients
from causalcxr.debias.protocol import Subject, measure
from causalcxr.debias.registry import make_eraser
from causalcxr.report.figures import save_png
from causalcxr.runs import load, open_run
from causalcxr.values import decode

SUBJECTS = 4000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    first = open_run(options.runs[0])
    cohort = open_cohort(replace(first.config.data, test=SUBJECTS), first.graph)
    test = cohort.split("test")
    network = classifier(first.config, cohort, first.graph[KEPT], cohort.split("train"), 0)
    z, values = (
        embed_split(network, test),
        values_to_average(first.graph, ERASED, cohort.split("train").attributes),
    )
    columns = {name: np.array(decode(first.graph[name], test.attributes[name])) for name in (*ERASED, KEPT)}
    found: dict[str, Any] = {}
    for folder in options.runs:
        scm = load(folder)
        pairs = counterfactual_embeddings(scm, test, network, values)
        rows = embedded(z, {name: columns[name] for name in ERASED}, {KEPT: columns[KEPT]}, pairs)
        subject = Subject(rows, split_patients(rows.patients))
        one = measure(subject, subject.fit(make_eraser("counterfactual")), more=False)
        found[folder.name] = {
            name: {"exact_error": exact_error(scm, test, name), "leak": one.strongest(name)[1].value}
            for name in ERASED
        }
        print(folder.name, found[folder.name], flush=True)
    keep({"quality": found})
    save_png(figure(found), HERE.parents[1] / "docs" / "debias_quality.png")


def figure(found: dict[str, Any]) -> Figure:
    drawn = Figure(figsize=(4.6, 3.2), facecolor="white", layout="constrained")
    axes = drawn.add_subplot()
    for name, colour in zip(ERASED, ("#2c5f8a", "#d9822b"), strict=True):
        points = sorted((of[name]["exact_error"], of[name]["leak"]) for of in found.values())
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=5, linewidth=0.8, label=name)
    axes.axhline(0.5, color="#1d2733", linewidth=0.8, linestyle=":")
    axes.set_xlabel("exact error of the model's counterfactuals (0: exact)", fontsize=8)
    axes.set_ylabel("leak: AUROC of the strongest probe", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dde2e8", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    return drawn


if __name__ == "__main__":
    main()
