"""Everything an evaluator says of a model's interventions: the definitions, and the whole set of measurements."""

from collections.abc import Mapping, Sequence

import numpy as np

from causalcxr.graph import Graph
from causalcxr.metrics.amplification import Resampled, Trial, measure_drift, measure_trial, off_target
from causalcxr.metrics.entries import Key
from causalcxr.metrics.intervals import Interval
from causalcxr.metrics.realism import realism

__all__ = ["define_target", "measure_trials"]

_REFERENCE = (
    "the reference R(do): the exact counterfactuals of the same rows on simulated data, else the real test images "
    "weighted to the population that the intervention describes"
)
_DO = "the direct effect of do({k} = a draw from the training marginal)"
_POINTS = "the evaluator's AUROC in points (of a number: for lying above the training median)"
_PLAIN = (
    "The same against plain real images, the published choice, which is not 0 for exact counterfactuals either."
)
DEFINITIONS = {
    "effectiveness": f"Effectiveness: {_POINTS} for '{{k}}' on counterfactuals under {_DO}.",
    "overshoot": f"Overshoot of {_DO}: {_POINTS} for '{{k}}' on counterfactuals minus that on {_REFERENCE}. "
    "0 is right.",
    "overshoot_plain": f"Overshoot of {_DO}. {_PLAIN}",
    "amplification": f"Amplification of '{{a}}' under {_DO}: {_POINTS} for '{{a}}' on counterfactuals minus that "
    f"on {_REFERENCE}. Above 0 amplifies, below 0 erases, 0 is right.",
    "amplification_plain": f"Amplification of '{{a}}' under {_DO}. {_PLAIN}",
    "error": f"Mean absolute error of the evaluator for '{{a}}', in its unit, on counterfactuals under {_DO}.",
    "error_gap": f"The evaluator's mean absolute error for '{{a}}', in its unit, on counterfactuals under {_DO} "
    f"minus that on {_REFERENCE}. 0 is right.",
    "drift": f"Drift of '{{a}}' under {_DO}: mean shift of the evaluator's log-odds towards the row's label from "
    "the factual image to the counterfactual (of a number: of its prediction, in its unit).",
    "shift": f"Mean absolute change of the evaluator's probability of the row's label of '{{a}}' (of a number: of "
    f"its prediction, in its unit) under {_DO}.",
    "drift_exact": "As drift, of the exact counterfactuals: what is right.",
    "shift_exact": "As shift, of the exact counterfactuals: what is right.",
    "realism": f"Frechet distance, in the evaluator's feature space, between counterfactuals under {_DO} and "
    f"{_REFERENCE}. 0 is right; interval from 100 resamples.",
    "off_target": "Mean absolute amplification over all interventions and all other attributes, in points. 0 is "
    "right; the interval takes away what noise adds to an absolute value (basic bootstrap).",
    "effective_rows": f"Effective number of rows of the reference under {_DO}: (sum w)^2 / sum w^2.",
}


def measure_trials(
    graph: Graph, trials: Sequence[Trial], medians: Mapping[str, float], patients: np.ndarray, simulated: bool
) -> dict[Key, Interval]:
    """All measurements of all interventions. `patients` `(N,)`; `medians` of the training split."""
    found: dict[Key, Interval] = {}
    cells: list[Resampled] = []
    n = len(patients)
    for trial in trials:
        measured, amplification = measure_trial(graph, trial, medians, patients)
        found |= measured
        cells += amplification.values()
        found |= measure_drift(graph, trial, patients)
        if simulated:
            right = Trial(trial.name, trial.reference, trial.reference, trial.factual)
            for (what, k, a), interval in measure_drift(graph, right, patients).items():
                found[f"{what}_exact", k, a] = interval
        found["realism", trial.name] = realism(trial, patients)
        rows = trial.reference.effective_size
        found["effective_rows", trial.name] = Interval(rows, rows, rows, n)
    if cells:
        found["off_target",] = off_target(cells, n)
    return found


def define_target(key: Key) -> str:
    """The definition of one of these measurements. Raises KeyError for another's key."""
    k, a = (*key[1:], "", "")[:2]
    return DEFINITIONS[key[0]].format(k=k, a=a)
