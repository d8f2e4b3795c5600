"""Both image mechanisms on the demo's data: exact errors before and after fine-tuning, composition, and the time.

    python benchmarks/flow/run.py --seeds 0 1 2                     the flow, into results.json beside this file
    python benchmarks/flow/run.py --mechanisms hvae --seeds 0       the hierarchical VAE
    python benchmarks/flow/run.py --steps runs/demo                 a table of solver steps, on validation films
    python benchmarks/flow/run.py --new-subjects --seeds 0 1 2     exact errors of 4,000 more subjects, by guidance

Trains, fine-tunes a copy with counterfactual targets, and evaluates both on the test split. A run that is there
already is not trained again. Other mechanisms' and seeds' results stay. What `benchmarks/morphomnist.py` has found
of a flow is summed up beside it.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import causalcxr
from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.interventions import draw_other_values
from causalcxr.mechanisms.flow import Flow
from causalcxr.metrics.exact import error_norms
from causalcxr.metrics.intervals import ratio_interval
from causalcxr.metrics.truth import find_truth
from causalcxr.runs import open_run
from causalcxr.support.files import write_json
from causalcxr.training.pipeline import train

HERE = Path(__file__).parent
PRESETS = {"flow": "quickstart", "hvae": str(HERE / "hvae.yaml")}
ATTRIBUTES = ("sex", "race", "age", "finding")
STEPS = (2, 5, 10, 20, 50)
GUIDANCE = (1.0, 1.15, 1.3)
MORPHOMNIST = HERE.parent / "results" / "morphomnist_flow.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mechanisms", nargs="+", choices=PRESETS, default=["flow"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/flow"), help="folder of the runs")
    parser.add_argument("--steps", metavar="RUN", help="only the table of solver steps, of this run of a flow")
    parser.add_argument(
        "--new-subjects", action="store_true", help="only exact errors of trained runs on more subjects"
    )
    options = parser.parse_args()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if options.steps:
        results["steps"] = solver_steps(options.steps)
    elif options.new_subjects:
        for seed in options.seeds:
            found = new_subjects(options.out / f"flow{seed}")
            results.setdefault("new_subjects", {})[str(seed)] = found
    else:
        demo = results.setdefault("demo", {})
        for mechanism in options.mechanisms:
            for seed in options.seeds:
                found = run(mechanism, options.out / f"{mechanism}{seed}", seed)
                demo.setdefault(mechanism, {})[str(seed)] = found
                write_json(path, results)
    write_json(path, results | summary(results["demo"]))
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


def run(mechanism: str, folder: Path, seed: int) -> dict[str, Any]:
    """What is found of one seed, before and after fine-tuning; seconds are by stage."""
    words = [f"preset={PRESETS[mechanism]}", f"run={folder}", f"train.seed={seed}"]
    trained = train(load_config(words))
    tuned = train(load_config([f"base={trained}", "finetune.targets=counterfactual"]))
    evaluate([f"run={tuned}", f"evaluate.compare=[{trained}]"])
    written = json.loads((tuned / "metrics.json").read_text())
    before, after = written["compared"][trained.name]["metrics"], written["metrics"]
    return {
        "trained": _chosen(before) | {"seconds": open_run(trained).provenance["seconds"]},
        "fine-tuned": _chosen(after) | {"seconds": open_run(tuned).provenance["seconds"]},
    }


def summary(demo: dict[str, Any]) -> dict[str, Any]:
    """Composition with the residual kept, in grey levels by cycles, of the first seed; and Morpho-MNIST.

    Of intensity the measurement that errs least on real images: its definition, not a network.
    """
    first = {name: next(iter(seeds.values()))["fine-tuned"]["composition"] for name, seeds in demo.items()}
    found = {
        name: {cycles: kept[f"kept/{cycles}"]["value"] for cycles in ("1", "10")} for name, kept in first.items()
    }
    summed: dict[str, Any] = {"composition": found, "seeds": sorted(map(int, demo["flow"]))}
    if MORPHOMNIST.exists():
        digits = json.loads(MORPHOMNIST.read_text())
        causes = ("thickness", "intensity", "digit")
        keys = {
            "thickness_mae": "thickness_mae",
            "intensity_mae": "intensity_mae_by_definition",
            "intensity_mae_of_network": "intensity_mae",
            "digit_accuracy": "digit_accuracy",
        }
        summed["morphomnist"] = {key: [digits["ours"][of][cause] for cause in causes] for key, of in keys.items()}
        summed["morphomnist"]["cpu_hours"] = digits["provenance"]["seconds"]["image"] / 3600  # on one thread
    return summed


def _chosen(metrics: dict[str, Any]) -> dict[str, Any]:
    """Value and interval of what is shown of a run."""

    def part(key: str) -> dict[str, float]:
        return {name: metrics[key][name] for name in ("value", "low", "high")}

    composition = {key.split("/", 1)[1]: part(key) for key in metrics if key.startswith("composition/")}
    return {
        "exact_error": {name: part(f"exact/model/{name}/error") for name in ATTRIBUTES},
        "overshoot": {name: part(f"overshoot/{name}") for name in ATTRIBUTES},
        "off_target": part("off_target"),
        "composition": composition,
    }


@torch.no_grad()
def solver_steps(folder: str, rows: int = 250) -> dict[str, Any]:
    """By steps of the solver: error of a round trip, in grey levels, exact errors, and seconds of both ways."""
    opened, scm = open_run(folder), causalcxr.load(folder)
    cohort, flow, found = open_cohort(opened.config.data, opened.graph), scm.image_mechanism, {}
    truth = find_truth(cohort)
    assert isinstance(flow, Flow) and truth is not None
    split, ids = cohort.split("val"), torch.from_numpy(cohort.split("val").ids[:rows])
    batch = split.batch(range(rows))
    drawn = draw_other_values(opened.graph, batch, cohort.split("train").attributes, 0)
    image, factual = batch["image"] / 255, truth.images(ids)
    exact = {name: truth.images(ids, {name: drawn[name]}) - factual for name in ATTRIBUTES}
    for steps in STEPS:
        flow.config, begun = replace(flow.config, steps=steps), time.perf_counter()
        inferred = flow.infer(image, batch)
        made = {name: flow(inferred.noise, {**batch, name: drawn[name]}) for name in ATTRIBUTES}
        seconds = time.perf_counter() - begun
        back = flow.solve(inferred.noise.latent, inferred.features, inferred.noise.start, 1.0)
        lost = flow.space.decode(back) - flow.space.decode(inferred.coordinates)
        errors = {}
        for name in ATTRIBUTES:
            distance, size = error_norms(made[name] - image, exact[name])
            errors[name] = float(distance.sum() / size.sum())
        found[str(steps)] = {
            "round_trip_levels": float(255 * lost.abs().mean()),
            "exact_error": errors,
            "seconds": seconds,
        }
    return found


@torch.no_grad()
def new_subjects(folder: Path, n: int = 4000) -> dict[str, Any]:
    """Exact errors before fine-tuning of `n` subjects whom no split has, by guidance: a smaller sampling error."""
    opened, scm = open_run(folder), causalcxr.load(folder)
    data, flow = opened.config.data, scm.image_mechanism
    cohort = open_cohort(replace(data, test=data.test + n), opened.graph)
    truth = find_truth(cohort)
    assert isinstance(flow, Flow) and truth is not None
    test, found = cohort.split("test").subset(range(data.test, data.test + n)), {}
    drawn = draw_other_values(opened.graph, test.batch(range(n)), cohort.split("train").attributes, 0)
    for guidance in GUIDANCE:
        flow.config = replace(flow.config, guidance=guidance)
        norms: dict[str, list[Any]] = {name: [] for name in ATTRIBUTES}
        for rows in torch.arange(n).split(500):
            batch, ids = test.batch(rows), torch.tensor(test.ids[rows])
            image, factual = batch["image"] / 255, truth.images(ids)
            inferred = flow.infer(image, batch)
            for name in ATTRIBUTES:
                made = flow(inferred.noise, {**batch, name: drawn[name][rows]})
                effect = truth.images(ids, {name: drawn[name][rows]}) - factual
                norms[name].append(torch.stack(error_norms(made - image, effect)))
        both = {name: torch.cat(parts, dim=1).double().numpy() for name, parts in norms.items()}
        found[f"{guidance:g}"] = {
            name: vars(ratio_interval(distance, size, test.patients)) for name, (distance, size) in both.items()
        }
    return found


if __name__ == "__main__":
    main()
