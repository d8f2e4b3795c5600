"""Evaluate a run: measure it on the test split, write metrics.json, figures and a self-contained report.html."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalcxr.config import Config, override_config
from causalcxr.data.cohort import Cohort, Split, open_cohort
from causalcxr.errors import ConfigError, nearest
from causalcxr.files import write_json
from causalcxr.metrics.attributes import interventional_means, sample_attributes
from causalcxr.metrics.images import Key, Rows, abduct, measure_images
from causalcxr.metrics.interventions import choose_interventions, parse_intervention
from causalcxr.metrics.likelihood import attribute_log_likelihoods
from causalcxr.metrics.summary import Metrics, summarise
from causalcxr.metrics.truth import Truth, find_truth
from causalcxr.progress import progress_bar
from causalcxr.report.build import Results, build_report
from causalcxr.report.gallery import Gallery, choose_rows, make_gallery
from causalcxr.runs import Run, load, open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.training import seed_of

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

OVERRIDABLE = ("data.cache", "data.prepared", "data.root")
ATTRIBUTE_DRAWS = 10_000


@dataclass(frozen=True)
class Subject:
    """Everything that is measured: the model, the data, and the truth where it is known."""

    run: Run
    config: Config
    scm: StructuralCausalModel
    cohort: Cohort
    truth: Truth | None
    interventions: Sequence[Mapping[str, Any]]

    @property
    def has_image(self) -> bool:
        """Whether there is a trained image mechanism to measure."""
        return self.run.graph.image is not None and "image" in self.run.finished_stages()

    @property
    def train(self) -> Split:
        """The training split; its attributes give the marginals that interventions are drawn from."""
        return self.cohort.split("train")

    @property
    def test(self) -> Split:
        """The split that is measured."""
        return self.cohort.split("test")


def evaluate(arguments: Sequence[str]) -> Path:
    """Measure the run named by `run=FOLDER`; further arguments override `evaluate.*` and where the data are.

    Returns the path of report.html; metrics.json and figures/ stand beside it.
    Raises ConfigError: no run, another key, an impossible value. Raises RunError: no such run, or not trained.
    Raises DataError: its cohort can't be opened. Raises GraphError: an intervention that the graph refuses.
    """
    begun = time.perf_counter()
    subject = _open(arguments)
    batches = _batches(subject)
    with progress_bar("evaluate", len(batches) + 3) as advance:
        metrics = _measure_attributes(subject)
        advance("attributes")
        measured, gallery = _measure_batches(subject, batches, advance)
        metrics = measured | metrics
        samples = _sample(subject)
        advance("samples")
        write_json(subject.run.folder / "metrics.json", _as_json(subject, metrics, batches))
        subject.run.note(seconds={"evaluate": time.perf_counter() - begun})
        report = build_report(_results(subject, metrics, gallery, samples, batches))
        advance("report")
    return report


def _open(arguments: Sequence[str]) -> Subject:
    folder, overrides = _split_arguments(arguments)
    run = open_run(folder)
    config = override_config(run.config, overrides)
    interventions = [parse_intervention(run.graph, text) for text in config.evaluate.interventions]
    scm = load(folder, _device(config))
    cohort = open_cohort(config.data, run.graph)
    chosen = interventions or choose_interventions(run.graph, cohort.split("train").attributes)
    return Subject(run, config, scm, cohort, find_truth(cohort), chosen)


def _split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    folders = [value for argument in arguments for key, _, value in [argument.partition("=")] if key == "run"]
    if len(folders) != 1 or not folders[0]:
        raise ConfigError(
            f"evaluate: expected one run=FOLDER, got {len(folders)}; for example evaluate run=runs/demo"
        )
    overrides = [argument for argument in arguments if argument.partition("=")[0] != "run"]
    for argument in overrides:
        key = argument.partition("=")[0]
        if key not in OVERRIDABLE and not key.startswith("evaluate."):
            known = ["run", *OVERRIDABLE, *(f"evaluate.{name}" for name in vars(Config().evaluate))]
            raise ConfigError(
                f"evaluate: '{key}' can't be changed for a trained run; {nearest(key, known)} "
                f"(what can: {', '.join(known)})"
            )
    return folders[0], overrides


def _device(config: Config) -> str:
    return "cuda" if config.train.device != "cpu" and torch.cuda.is_available() else "cpu"


def _batches(subject: Subject) -> list[np.ndarray]:
    """Row numbers of the test split: the gallery's rows first, the rest in batches. None without an image."""
    if not subject.has_image:
        return []
    config, n = subject.config.evaluate, len(subject.test)
    rows = np.arange(n)
    if 0 < config.rows < n:
        rows = np.sort(np.random.default_rng(config.seed).permutation(n)[: config.rows])
    attributes = {name: values[rows] for name, values in subject.test.attributes.items()}
    shown = choose_rows(subject.run.graph, attributes, min(config.gallery_rows, len(rows)))
    rest = np.delete(rows, shown)
    starts = range(0, len(rest), config.batch_size)
    return [rows[shown], *(rest[start : start + config.batch_size] for start in starts)]


def _measure_batches(
    subject: Subject, batches: Sequence[np.ndarray], advance: Callable[[str], None]
) -> tuple[Metrics, Gallery | None]:
    """All image metrics, and the gallery from the first batch. Every batch is abducted once."""
    parts: list[Rows] = []
    gallery, config, scm = None, subject.config.evaluate, subject.scm
    train, ids = subject.train.attributes, torch.from_numpy(subject.test.ids)
    for i, rows in enumerate(batches):
        seed = seed_of(config.seed, i)
        abduction, elbo = abduct(scm, subject.test.batch(rows), seed)
        if gallery is None:
            gallery = make_gallery(scm, abduction, elbo, subject.interventions, subject.truth, ids[rows], seed)
        measured = measure_images(scm, abduction, elbo, train, subject.truth, ids[rows], config.cycles, seed)
        parts.append({key: values.cpu() for key, values in measured.items()})
        advance("images")
    if not parts:
        return {}, None
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return summarise(joined, subject.test.patients[np.concatenate(batches)]), gallery


def _measure_attributes(subject: Subject) -> Metrics:
    """Log-likelihood of every attribute on the whole test split, and the laws under the interventions."""
    test, seed = subject.test, seed_of(subject.config.evaluate.seed, "attributes")
    likelihoods = attribute_log_likelihoods(subject.scm, test.attributes)
    rows: dict[Key, Any] = {("attributes", name, "log_likelihood"): v.cpu() for name, v in likelihoods.items()}
    metrics = summarise(rows, test.patients)
    for do in [{}, *subject.interventions]:
        drawn = {"model": sample_attributes(subject.scm, ATTRIBUTE_DRAWS, do, seed)}
        if subject.truth is not None:
            drawn["exact"] = subject.truth.attributes(range(ATTRIBUTE_DRAWS), do)
        for who, values in drawn.items():
            means = interventional_means(subject.run.graph, do, subject.interventions, values, who)
            metrics |= summarise(means, np.arange(ATTRIBUTE_DRAWS))
    return metrics


def _sample(subject: Subject) -> dict[str, torch.Tensor] | None:
    if not subject.has_image:
        return None
    config = subject.config.evaluate
    return {
        k: v.cpu() for k, v in subject.scm.sample(config.samples, seed=seed_of(config.seed, "samples")).items()
    }


def _results(
    subject: Subject,
    metrics: Metrics,
    gallery: Gallery | None,
    samples: Mapping[str, torch.Tensor] | None,
    batches: Sequence[np.ndarray],
) -> Results:
    seed = seed_of(subject.config.evaluate.seed, "attributes")
    curves = subject.run.folder / "metrics.jsonl"
    shown = min(len(subject.test), subject.config.evaluate.samples)
    return Results(
        run=subject.run,
        config=subject.config,
        cohort=subject.cohort,
        simulated=subject.truth is not None,
        metrics=metrics,
        gallery=gallery,
        samples=samples,
        real=None if samples is None else subject.test.batch(range(shown)),
        attributes=sample_attributes(subject.scm, ATTRIBUTE_DRAWS, seed=seed),
        curves=[json.loads(line) for line in curves.read_text("utf-8").splitlines()] if curves.exists() else [],
        rows=sum(map(len, batches)) or len(subject.test),
    )


def _as_json(subject: Subject, metrics: Metrics, batches: Sequence[np.ndarray]) -> dict[str, Any]:
    return {
        "run": subject.run.folder.name,
        "split": "test",
        "rows_of_images": sum(map(len, batches)),
        "rows_of_attributes": len(subject.test),
        "seed": subject.config.evaluate.seed,
        "data_hash": subject.cohort.data_hash,
        "metrics": {"/".join(key): entry for key, entry in metrics.items()},
    }
