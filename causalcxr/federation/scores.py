"""What a trained predictor says of the test films, and how good that is: over all, by group and by site."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causalcxr.data.cohort import Split
from causalcxr.graph import Variable
from causalcxr.metrics.auroc import make_task, task_auroc
from causalcxr.metrics.intervals import (
    Interval,
    absolute_interval,
    bootstrap,
    percentile_interval,
    widened_by_seeds,
)
from causalcxr.predictors.calibration import predict_split
from causalcxr.predictors.predictor import Prediction, Predictor

__all__ = ["DEFINITIONS", "Measured", "measure", "score", "unit_of"]

DEFINITIONS = {
    "AUROC": "Of a label against the others on test films, mean over labels where there are three or more.",
    "error": "Mean absolute error on test films, in the attribute's unit.",
    "disparity": "The largest value over groups less the smallest, with a basic interval over patients, for noise "
    "only ever adds to it. Groups of fewer than 20 test films, or of one label alone, are left out.",
}
FEW = 20  # test films of a group


@dataclass(frozen=True)
class Measured:
    """How good one strategy is for one attribute: AUROC of labels, mean absolute error of a number."""

    overall: Interval
    by_seed: list[float]
    by_group: dict[str, dict[str, float]]
    disparity: dict[str, Interval]


def unit_of(variable: Variable) -> str:
    """What is measured of an attribute."""
    return "AUROC" if variable.is_discrete else "error"


def score(predictor: Predictor, rows: Split, names: Sequence[str]) -> dict[str, Tensor]:
    """Logits `(N, labels)` or predicted numbers `(N,)` of these attributes on all films of a split."""
    seen = predict_split(predictor.eval(), rows)
    return {name: seen[name].float() for name in names}


def measure(
    variable: Variable, runs: Sequence[Prediction], rows: Split, groups: Mapping[str, np.ndarray]
) -> Measured:
    """The mean over seeds (or sites that learned alone) with intervals over patients, wider by what seeds differ.

    `runs`: what each said of the test films `rows`. `groups`: by name, the label of every row's group.
    """
    answers, patients = rows.attributes[variable.name], rows.patients
    values = [_statistic(variable, run[variable.name], answers) for run in runs]
    overall = _interval(values, patients, 1.0 if variable.is_discrete else np.inf)
    by_group: dict[str, dict[str, float]] = {}
    disparity: dict[str, Interval] = {}
    for name, labels in groups.items():
        masks = {str(label): labels == label for label in np.unique(labels)}
        masks = {label: mask for label, mask in masks.items() if _enough(variable, answers, mask)}
        means = {
            label: _mean([value(mask[None].astype(float)) for value in values]) for label, mask in masks.items()
        }
        by_group[name] = {label: float(mean[0]) for label, mean in means.items()}
        if len(masks) > 1:
            disparity[name] = _disparity(values, list(masks.values()), patients)
    return Measured(overall, [float(value(np.ones((1, len(rows))))[0]) for value in values], by_group, disparity)


Statistic = Callable[[np.ndarray], np.ndarray]  # weights of the rows (R, N) to (R,)


def _statistic(variable: Variable, output: Tensor, answers: Tensor) -> Statistic:
    if variable.is_discrete:
        task = make_task(variable, output, answers, np.nan)
        return lambda weights: task_auroc(task, weights)
    errors = (output.double() - answers.double()).abs().numpy()
    return lambda weights: (weights @ errors) / weights.sum(axis=1)


def _enough(variable: Variable, answers: Tensor, mask: np.ndarray) -> bool:
    here = answers[torch.from_numpy(mask)]
    return len(here) >= FEW and (not variable.is_discrete or here.unique().numel() == len(variable.labels))


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(values, axis=0)


def _interval(values: Sequence[Statistic], patients: np.ndarray, most: float) -> Interval:
    value, drawn = bootstrap(lambda weights: _mean([each(weights) for each in values])[:, None], patients)
    interval = percentile_interval(value[0], drawn[:, 0], len(patients))
    return widened_by_seeds(interval, [float(each(np.ones((1, len(patients))))[0]) for each in values], 0.0, most)


def _disparity(values: Sequence[Statistic], masks: Sequence[np.ndarray], patients: np.ndarray) -> Interval:
    def spread(weights: np.ndarray) -> np.ndarray:
        groups = np.stack([_mean([each(weights * mask) for each in values]) for mask in masks])
        return (groups.max(axis=0) - groups.min(axis=0))[:, None]

    value, drawn = bootstrap(spread, patients)
    return absolute_interval(float(value[0]), drawn[:, 0], len(patients))
