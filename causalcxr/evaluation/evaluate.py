"""Evaluate a run: measure it on the test split, write metrics.json, figures and a self-contained report.html."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalcxr.config import Config, override_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.measure import (
    ATTRIBUTE_DRAWS,
    EvaluatedModel,
    measure_attributes,
    measure_classifiers,
    measure_models,
    test_batches,
)
from causalcxr.interventions import choose_interventions, parse_intervention
from causalcxr.metrics.entries import Metrics
from causalcxr.metrics.truth import find_truth
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import seed_of
from causalcxr.report.build import Compared, Results, build_report
from causalcxr.report.gallery import Gallery
from causalcxr.runs import Run, load, open_run
from causalcxr.support.errors import ConfigError, RunError, nearest
from causalcxr.support.files import write_json
from causalcxr.support.progress import progress_bar

__all__ = ["DATA_PLACES", "device_of", "evaluate", "refuse_settings"]

log = logging.getLogger(__name__)

DATA_PLACES = ("data.cache", "data.prepared", "data.root")


def evaluate(arguments: Sequence[str], evaluator: Predictor | None = None) -> Path:
    """Measure the run named by `run=FOLDER`; further arguments override `evaluate.*` and where the data are.

    `evaluate.compare=[FOLDER,...]` measures other runs of the same data beside it, on the same rows, by the same
    evaluator. `evaluator` takes the place of the run's own (see predictors/adapters.py).
    Returns the path of report.html; metrics.json and figures/ stand beside it.
    Raises ConfigError: no run, another key, an impossible value, or an `evaluator` without one of the graph's
    attributes. Raises RunError: no such run, not trained, or fine-tuned with the predictor that should score it.
    Raises DataError: its cohort can't be opened. Raises GraphError: an intervention that the graph refuses.
    """
    begun = time.perf_counter()
    model = _open(arguments, evaluator)
    others = [_open_other(model, folder) for folder in model.config.evaluate.compare]
    batches = test_batches(model)
    with progress_bar("evaluate", (1 + len(others)) * len(batches) + 3) as advance:
        metrics = measure_attributes(model)
        classifiers, diagrams = measure_classifiers(model, _predictors(model))
        advance("attributes")
        (measured, gallery), *of_others = measure_models([model, *others], batches, advance)
        metrics = measured | metrics | classifiers
        compared = [Compared(other.run, *found) for other, found in zip(others, of_others, strict=True)]
        samples = _sample(model)
        advance("samples")
        write_json(model.run.folder / "metrics.json", _as_json(model, metrics, compared, batches))
        model.run.note(seconds={"evaluate": time.perf_counter() - begun})
        report = build_report(_results(model, metrics, gallery, samples, batches, compared, diagrams))
        advance("report")
    return report


def _open(arguments: Sequence[str], evaluator: Predictor | None) -> EvaluatedModel:
    folder, overrides = _split_arguments(arguments)
    run = open_run(folder)
    config = override_config(run.config, overrides)
    interventions = [parse_intervention(run.graph, text) for text in config.evaluate.interventions]
    device = device_of(config)
    scm = load(folder, device)
    cohort = open_cohort(config.data, run.graph)
    chosen = interventions or choose_interventions(run.graph, cohort.split("train").attributes)
    evaluator = evaluator or _own_evaluator(run)
    truth = find_truth(cohort)
    return EvaluatedModel(run, config, scm, cohort, truth, evaluator.to(device) if evaluator else None, chosen)


def _open_other(model: EvaluatedModel, folder: str) -> EvaluatedModel:
    """Another run, measured as the first one is, but for what takes longest and is shown of the first alone."""
    run = open_run(folder)
    graph, other = (one.graph.with_image_mechanism("") for one in (model.run, run))  # mechanisms may differ
    if graph != other or not _same_data(run, model.run):
        raise RunError(
            f"evaluate.compare: run '{folder}' has another graph or other data than '{model.run.folder}'"
        )
    config = replace(model.config, evaluate=replace(model.config.evaluate, draws=1, cycles=1))
    return replace(model, run=run, config=config, scm=load(folder, device_of(model.config)))


def _same_data(run: Run, other: Run) -> bool:
    """Whether two runs have the same data, wherever these lie; a prepared folder is known by its hash."""
    if run.config.data.prepared or other.config.data.prepared:
        return run.provenance.get("data_hash") == other.provenance.get("data_hash")
    content, others = (replace(r.config.data, root="", cache="", workers=0) for r in (run, other))
    return content == others


def _own_evaluator(run: Run) -> Predictor | None:
    return run.load_predictor("evaluator") if "predictors" in run.finished_stages() else None


def _predictors(model: EvaluatedModel) -> dict[str, Predictor]:
    """The auxiliary classifiers that the report describes."""
    found: dict[str, Predictor] = {}
    if "predictors" in model.run.finished_stages():
        found["predictor"] = model.run.load_predictor("predictor").to(model.scm.device)
    return found | ({"evaluator": model.evaluator} if model.evaluator is not None else {})


def _split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    folders = [value for argument in arguments for key, _, value in [argument.partition("=")] if key == "run"]
    if len(folders) != 1 or not folders[0]:
        raise ConfigError(
            f"evaluate: expected one run=FOLDER, got {len(folders)}; for example evaluate run=runs/demo"
        )
    overrides = [argument for argument in arguments if argument.partition("=")[0] != "run"]
    for argument in overrides:
        key = argument.partition("=")[0]
        if key not in DATA_PLACES and not key.startswith("evaluate."):
            known = ["run", *DATA_PLACES, *(f"evaluate.{name}" for name in vars(Config().evaluate))]
            raise ConfigError(
                f"evaluate: '{key}' can't be changed for a trained run; {nearest(key, known)} "
                f"(what can: {', '.join(known)})"
            )
    return folders[0], overrides


def refuse_settings(words: Sequence[str], command: str) -> None:
    """Raises ConfigError: one of the words key=value says something else than where the data are by now."""
    for word in words:
        if (key := word.partition("=")[0]) not in DATA_PLACES:
            raise ConfigError(f"{command}: '{key}' can't be set here; {nearest(key, DATA_PLACES)}")


def device_of(config: Config) -> str:
    """Where a trained run is measured: on a GPU if there is one and its settings do not say otherwise."""
    return "cuda" if config.train.device != "cpu" and torch.cuda.is_available() else "cpu"


def _sample(model: EvaluatedModel) -> dict[str, torch.Tensor] | None:
    if not model.has_image:
        return None
    config = model.config.evaluate
    return {k: v.cpu() for k, v in model.scm.sample(config.samples, seed=seed_of(config.seed, "samples")).items()}


def _results(
    model: EvaluatedModel,
    metrics: Metrics,
    gallery: Gallery | None,
    samples: Mapping[str, torch.Tensor] | None,
    batches: Sequence[np.ndarray],
    compared: Sequence[Compared],
    diagrams: Mapping[tuple[str, str], Any],
) -> Results:
    seed = seed_of(model.config.evaluate.seed, "attributes")
    curves = model.run.folder / "metrics.jsonl"
    shown = min(len(model.test), model.config.evaluate.samples)
    return Results(
        run=model.run,
        config=model.config,
        cohort=model.cohort,
        simulated=model.truth is not None,
        metrics=metrics,
        gallery=gallery,
        samples=samples,
        real=None if samples is None else model.test.batch(range(shown)),
        attributes=model.scm.sample_attributes(ATTRIBUTE_DRAWS, seed=seed),
        curves=[json.loads(line) for line in curves.read_text("utf-8").splitlines()] if curves.exists() else [],
        rows=sum(map(len, batches)) or len(model.test),
        compared=compared,
        diagrams=diagrams,
    )


def _as_json(
    model: EvaluatedModel, metrics: Metrics, compared: Sequence[Compared], batches: Sequence[np.ndarray]
) -> dict[str, Any]:
    return {
        "run": model.run.folder.name,
        "split": "test",
        "rows_of_images": sum(map(len, batches)),
        "rows_of_attributes": len(model.test),
        "seed": model.config.evaluate.seed,
        "data_hash": model.cohort.data_hash,
        "finetune": model.run.finetuned(),
        "metrics": {"/".join(key): entry for key, entry in metrics.items()},
        "compared": {
            other.run.folder.name: {
                "finetune": other.run.finetuned(),
                "metrics": {"/".join(key): entry for key, entry in other.metrics.items()},
            }
            for other in compared
        },
    }
