"""Whether an intervention changed what it should and nothing else, as an evaluator sees it.

For do(k): effectiveness and overshoot of k, amplification of every other attribute, drift of the log-odds. The
right score of a counterfactual is that of the population which the intervention describes, the reference R(do):
on simulated data the exact counterfactuals of the same rows; on real data the real test images, weighted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.graph import Graph, Variable
from causalcxr.metrics.auroc import Task, make_task, task_auroc
from causalcxr.metrics.entries import Key
from causalcxr.metrics.intervals import Interval, absolute_interval, bootstrap, mean_interval, percentile_interval
from causalcxr.predictors.predictor import Prediction
from causalcxr.values import Batch

__all__ = ["Population", "Resampled", "Trial", "drift", "measure_drift", "measure_trial", "off_target"]


@dataclass(frozen=True)
class Population:
    """Images as the evaluator sees them: its predictions and features, and the attributes they were made with.

    `weights` `(N,)`: importance of each row; None if all count the same.
    """

    prediction: Prediction
    features: Tensor
    labels: Batch
    weights: np.ndarray | None = None

    @property
    def effective_size(self) -> float:
        """Kish's effective number of rows, `(sum w)^2 / sum w^2`."""
        if self.weights is None:
            return float(len(self.features))
        return float(self.weights.sum() ** 2 / np.square(self.weights).sum())


@dataclass(frozen=True)
class Trial:
    """One intervention: the counterfactuals, the reference that they are compared with, and the factual images."""

    name: str
    counterfactual: Population
    reference: Population
    factual: Population


@dataclass(frozen=True)
class Resampled:
    """A statistic with its bootstrap resamples `(R,)`."""

    value: float
    drawn: np.ndarray


def measure_trial(
    graph: Graph, trial: Trial, medians: Mapping[str, float], patients: np.ndarray, resamples: int = 1000
) -> tuple[dict[Key, Interval], dict[str, Resampled]]:
    """Every score of one intervention, and the amplification of each other attribute with its resamples.

    `medians`: of the training split, for continuous attributes. `patients` `(N,)`.
    """
    names, n = list(graph.attributes), len(patients)
    variables = [graph[name] for name in names]
    populations = (trial.counterfactual, trial.reference, trial.factual)
    tasks = [[_task(v, p, medians) for v in variables] for p in populations]
    numbers = [v for v in variables if not v.is_discrete]
    errors = [[_absolute_error(v, p) for v in numbers] for p in populations]

    def statistics(weights: np.ndarray) -> np.ndarray:
        columns = []
        for population, of_names, of_numbers in zip(populations, tasks, errors, strict=True):
            weighted = weights if population.weights is None else weights * population.weights
            columns += [100 * task_auroc(task, weighted) for task in of_names]
            columns += [weighted @ error / weighted.sum(axis=1) for error in of_numbers]
        return np.stack(columns, axis=1)

    values, drawn = bootstrap(statistics, patients, resamples)
    both = np.concatenate([values[None], drawn])  # row 0: the data themselves
    made, right, plain = np.split(both, 3, axis=1)
    found: dict[Key, Interval] = {}
    amplification, k = {}, trial.name
    for i, name in enumerate(names):
        gap, published = made[:, i] - right[:, i], made[:, i] - plain[:, i]
        if name == k:
            found["effectiveness", k] = percentile_interval(made[0, i], made[1:, i], n)
            found["overshoot", k] = percentile_interval(gap[0], gap[1:], n)
            found["overshoot_plain", k] = percentile_interval(published[0], published[1:], n)
        else:
            found["amplification", k, name] = percentile_interval(gap[0], gap[1:], n)
            found["amplification_plain", k, name] = percentile_interval(published[0], published[1:], n)
            amplification[name] = Resampled(float(gap[0]), gap[1:])
    for j, variable in enumerate(numbers, start=len(names)):
        gap = made[:, j] - right[:, j]
        found["error", k, variable.name] = percentile_interval(made[0, j], made[1:, j], n)
        found["error_gap", k, variable.name] = percentile_interval(gap[0], gap[1:], n)
    return found, amplification


def off_target(amplification: Sequence[Resampled], n: int) -> Interval:
    """The mean absolute amplification over cells, in points."""
    value = float(np.mean([abs(cell.value) for cell in amplification]))
    drawn = np.mean([np.abs(cell.drawn) for cell in amplification], axis=0)
    return absolute_interval(value, drawn, n)


def drift(variable: Variable, after: Tensor, before: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Shift of each row's log-odds towards its label, and absolute change of the probability, `(B,)` both.

    Binary: `(2y - 1)(logit q(x*) - logit q(x))` and `|q(x*) - q(x)|`; with more labels, one against the rest for
    the row's own label. Of a number: the change of the prediction, and its absolute value.
    """
    if not variable.is_discrete:
        return after - before, (after - before).abs()
    odds = [_log_odds(logits, labels) for logits in (after, before)]
    return odds[0] - odds[1], (odds[0].sigmoid() - odds[1].sigmoid()).abs()


def measure_drift(graph: Graph, trial: Trial, patients: np.ndarray) -> dict[Key, Interval]:
    """Drift and absolute shift of every attribute that do(k) leaves alone or that follows it."""
    found: dict[Key, Interval] = {}
    for name in graph.attributes:
        if name == trial.name:
            continue
        after, before = (p.prediction[name] for p in (trial.counterfactual, trial.factual))
        signed, size = drift(graph[name], after, before, trial.counterfactual.labels[name])
        found["drift", trial.name, name] = mean_interval(signed.numpy(), patients)
        found["shift", trial.name, name] = mean_interval(size.numpy(), patients)
    return found


def _log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-odds of each row's label against all others."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)


def _task(variable: Variable, population: Population, medians: Mapping[str, float]) -> Task:
    name = variable.name
    return make_task(variable, population.prediction[name], population.labels[name], medians.get(name, np.nan))


def _absolute_error(variable: Variable, population: Population) -> np.ndarray:
    difference = population.prediction[variable.name] - population.labels[variable.name]
    return difference.abs().double().cpu().numpy()
