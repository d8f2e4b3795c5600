"""Measures one trained model on the test split: every batch is abducted once, for all metrics and the gallery."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from causalcxr.config import Config
from causalcxr.data.cohort import Cohort, Split
from causalcxr.interventions import draw_values
from causalcxr.metrics.attributes import interventional_means
from causalcxr.metrics.classifiers import measure_classifier
from causalcxr.metrics.entries import Key, Metrics, Rows
from causalcxr.metrics.images import measure_images
from causalcxr.metrics.likelihood import attribute_log_likelihoods
from causalcxr.metrics.scoring import Scored, join_trials, score_batch
from causalcxr.metrics.summary import describe_intervals, summarise
from causalcxr.metrics.targets import measure_trials
from causalcxr.metrics.truth import Truth
from causalcxr.predictors.calibration import Reliability, predict_split, reliability
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import Draws, seed_of
from causalcxr.report.gallery import Gallery, choose_rows, make_gallery
from causalcxr.runs import Run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, RunError

__all__ = [
    "ATTRIBUTE_DRAWS",
    "EvaluatedModel",
    "measure_attributes",
    "measure_classifiers",
    "measure_models",
    "test_batches",
]

ATTRIBUTE_DRAWS = 10_000


@dataclass(frozen=True)
class EvaluatedModel:
    """Everything that is measured: the model, the data, the evaluator, and the truth where it is known."""

    run: Run
    config: Config
    scm: StructuralCausalModel
    cohort: Cohort
    truth: Truth | None
    evaluator: Predictor | None
    interventions: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        if self.evaluator is None:
            return
        if self.evaluator.fingerprint() == self.run.finetuned().get("predictor"):
            raise RunError(
                f"run '{self.run.folder}' was fine-tuned with this very predictor, and it would praise what it "
                "taught; score with another one (the run's evaluator.safetensors)"
            )
        missing = [name for name in self.run.graph.attributes if name not in self.evaluator.index]
        if missing:
            raise ConfigError(
                f"evaluator: expected one that predicts every attribute of graph '{self.run.graph.name}', "
                f"got one without {', '.join(missing)}"
            )

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

    @property
    def medians(self) -> dict[str, float]:
        """Of the training split, for continuous attributes."""
        graph, train = self.run.graph, self.train.attributes
        return {name: float(train[name].median()) for name in graph.attributes if not graph[name].is_discrete}


def test_batches(model: EvaluatedModel) -> list[np.ndarray]:
    """Row numbers of the test split: the gallery's rows first, the rest in batches. None without an image."""
    if not model.has_image:
        return []
    config, n = model.config.evaluate, len(model.test)
    rows = np.arange(n)
    if 0 < config.rows < n:
        rows = np.sort(np.random.default_rng(config.seed).permutation(n)[: config.rows])
    attributes = {name: values[rows] for name, values in model.test.attributes.items()}
    shown = choose_rows(model.run.graph, attributes, min(config.gallery_rows, len(rows)))
    rest = np.delete(rows, shown)
    starts = range(0, len(rest), config.batch_size)
    return [rows[shown], *(rest[start : start + config.batch_size] for start in starts)]


def measure_models(
    models: Sequence[EvaluatedModel], batches: Sequence[np.ndarray], advance: Callable[[str], None]
) -> list[tuple[Metrics, Gallery | None]]:
    """All metrics that need images, and the gallery from the first batch, of models of the same data.

    Batch by batch, so that the exact counterfactuals of a batch are rendered once for all models.
    """
    found = [_Measured(model) for model in models]
    for i, rows in enumerate(batches):
        for one in found:
            one.add(i, rows)
            advance("images")
    return [one.summary(batches) if batches else ({}, None) for one in found]


class _Measured:
    """What has been measured of one model so far."""

    def __init__(self, model: EvaluatedModel):
        self.model, self.train = model, model.train.attributes
        self.causes = model.run.graph.causes_of_image
        draws, n = Draws(seed_of(model.config.evaluate.seed, "marginal")), len(model.test)
        self.values = draw_values(self.train, self.causes, n, draws)
        self.rows: list[Rows] = []
        self.scored: list[dict[str, Scored]] = []
        self.gallery: Gallery | None = None

    def add(self, i: int, rows: np.ndarray) -> None:
        """Measure batch number `i`; it is abducted once."""
        model, config, scm = self.model, self.model.config.evaluate, self.model.scm
        seed, ids = seed_of(config.seed, i), torch.from_numpy(model.test.ids[rows])
        with torch.no_grad():
            abduction, inferred = scm.infer(model.test.batch(rows), seed)
        assert inferred is not None
        if self.gallery is None:
            self.gallery = make_gallery(scm, abduction, inferred, model.interventions, model.truth, ids, seed)
        measured = measure_images(
            scm, abduction, inferred, self.train, model.truth, ids, config.cycles, config.draws, seed
        )
        self.rows.append({key: values.cpu() for key, values in measured.items()})
        if model.evaluator is not None:
            chosen = {name: value[rows] for name, value in self.values.items()}
            self.scored.append(score_batch(scm, model.evaluator, abduction, chosen, model.truth, ids))

    def summary(self, batches: Sequence[np.ndarray]) -> tuple[Metrics, Gallery | None]:
        """Statistics over all batches."""
        model, patients = self.model, self.model.test.patients[np.concatenate(batches)]
        joined = {key: torch.cat([part[key] for part in self.rows]) for key in self.rows[0]}
        metrics = summarise(joined, patients)
        if self.scored:
            trials = join_trials(model.scm, self.scored, self.causes, self.train)
            simulated = model.truth is not None
            scores = measure_trials(model.run.graph, trials, model.medians, patients, simulated)
            metrics |= describe_intervals(scores)
        return metrics, self.gallery


def measure_classifiers(
    model: EvaluatedModel, predictors: Mapping[str, Predictor]
) -> tuple[Metrics, dict[tuple[str, str], Reliability]]:
    """How good each auxiliary classifier is on the test split, and its reliability by who and attribute."""
    graph, test, metrics, diagrams = model.run.graph, model.test, {}, {}
    for who, predictor in predictors.items():
        outputs = predict_split(predictor, test, calibrated=False)
        labels, medians = test.attributes, model.medians
        found = measure_classifier(graph, who, predictor, outputs, labels, medians, test.patients)
        metrics |= describe_intervals(found)
        for variable in predictor.variables:
            if variable.is_discrete:
                logits = predictor.calibrated(
                    variable.name, outputs[variable.name].to(predictor.temperature.device)
                )
                diagrams[who, variable.name] = reliability(logits.cpu(), test.attributes[variable.name])
    return metrics, diagrams


def measure_attributes(model: EvaluatedModel) -> Metrics:
    """Log-likelihood of every attribute on the whole test split, and the laws under the interventions."""
    test, seed = model.test, seed_of(model.config.evaluate.seed, "attributes")
    likelihoods = attribute_log_likelihoods(model.scm, test.attributes)
    rows: dict[Key, Any] = {("attributes", name, "log_likelihood"): v.cpu() for name, v in likelihoods.items()}
    metrics = summarise(rows, test.patients)
    for do in [{}, *model.interventions]:
        drawn = {"model": model.scm.sample_attributes(ATTRIBUTE_DRAWS, do, seed)}
        if model.truth is not None:
            drawn["exact"] = model.truth.attributes(range(ATTRIBUTE_DRAWS), do)
        for who, values in drawn.items():
            means = interventional_means(model.run.graph, do, model.interventions, values, who)
            metrics |= summarise(means, np.arange(ATTRIBUTE_DRAWS))
    return metrics
