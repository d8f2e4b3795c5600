"""How good the auxiliary classifiers are themselves, and whether their confidence is right."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from causalcxr.graph import Graph, Variable
from causalcxr.metrics.auroc import make_task, task_auroc
from causalcxr.metrics.entries import Key
from causalcxr.metrics.intervals import Interval, absolute_interval, bootstrap, mean_interval, percentile_interval
from causalcxr.predictors.calibration import confidence_bins
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.values import Batch

__all__ = ["CALIBRATION_DEFINITION", "CLASSIFIER_DEFINITIONS", "measure_classifier"]

CLASSIFIER_DEFINITIONS = {
    "auroc": "AUROC in points (0 to 100) of the {who} for '{name}' on the factual test images; with three labels "
    "or more the mean over labels against the rest, of a number for lying above the training median.",
    "error": "Mean absolute error of the {who} for '{name}' on the factual test images, in its unit.",
}
CALIBRATION_DEFINITION = (
    "Expected calibration error of the {who} for '{name}', {when} temperature scaling, on factual test images: "
    "mean absolute difference between the confidence in the likeliest label and how often it is right, over 15 "
    "bins of equal width, weighted by their rows. 0 is right; noise alone gives a little more."
)


def measure_classifier(
    graph: Graph,
    who: str,
    predictor: Predictor,
    outputs: Prediction,
    labels: Batch,
    medians: Mapping[str, float],
    patients: np.ndarray,
) -> dict[Key, Interval]:
    """AUROC, error and calibration before and after scaling. `outputs` are uncalibrated, `(N, K)` or `(N,)`."""
    found: dict[Key, Interval] = {}
    for variable in predictor.variables:
        name, after = variable.name, predictor.calibrated(variable.name, outputs[variable.name])
        found["classifier", who, name, "auroc"] = _auroc(graph[name], after, labels[name], medians, patients)
        if variable.is_discrete:
            before = after * predictor.temperature[predictor.index[name]]
            for when, logits in (("before", before), ("after", after)):
                found["calibration", who, name, when] = _calibration_error(logits, labels[name], patients)
        else:
            errors = (after - labels[name]).abs().numpy()
            found["classifier", who, name, "error"] = mean_interval(errors, patients)
    return found


def _auroc(
    variable: Variable, output: Tensor, labels: Tensor, medians: Mapping[str, float], patients: np.ndarray
) -> Interval:
    task = make_task(variable, output, labels, medians.get(variable.name, np.nan))
    value, drawn = bootstrap(lambda weights: 100 * task_auroc(task, weights)[:, None], patients)
    return percentile_interval(value[0], drawn[:, 0], len(patients))


def _calibration_error(logits: Tensor, labels: Tensor, patients: np.ndarray) -> Interval:
    confidence, guess = F.softmax(logits.double(), dim=1).max(dim=1)
    gap = ((guess == labels).double() - confidence).numpy()
    by_bin = F.one_hot(confidence_bins(confidence)).numpy() * gap[:, None]

    def statistics(weights: np.ndarray) -> np.ndarray:
        return (np.abs(weights @ by_bin).sum(axis=1) / weights.sum(axis=1))[:, None]

    value, drawn = bootstrap(statistics, patients)
    return absolute_interval(float(value[0]), drawn[:, 0], len(patients))
