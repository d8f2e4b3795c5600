"""What must hold of the generator, and of the patients, before a contrast can be judged.

Leakage: the description of a patient's noise must not tell the attribute; where it does, it holds something that
the attribute causes, and conditioning on that feigns a dependence. Overlap: all else that is known must leave both
values possible. Composition: doing nothing must change nothing. Effectiveness and off-target change: as the
evaluator sees the counterfactuals.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from causalcxr.audit.nuisance import Attribute, chances_by_others, folds_by_group
from causalcxr.audit.verdict import Gate
from causalcxr.metrics.auroc import Task, task_auroc
from causalcxr.metrics.intervals import Interval, bootstrap, percentile_interval

__all__ = ["LIMITS", "generator_gates", "route_gates"]

LIMITS = {
    "leakage": 0.6,  # AUROC of the attribute from the noise, 0.5 being none
    "overlap": 0.95,  # share of rows with a chance of either value between the two ends below
    "composition": 0.5,  # grey levels
    "effectiveness": -5.0,  # overshoot, AUROC points
    "off_target": 2.0,  # mean absolute amplification of the other attributes, AUROC points
}
CHANCES = (0.02, 0.98)  # were all labels as common
FOLDS = 5
RESAMPLES = 300


def route_gates(a: np.ndarray, noise: np.ndarray, z: np.ndarray, patients: np.ndarray, seed: int) -> list[Gate]:
    """Leakage and overlap of an attribute `(N,)`. `z` `(N, k)`: all that is conditioned on, `noise` among it."""
    halves = a if a.dtype.kind != "f" else (a > np.median(a)).astype(int)
    codes = Attribute(halves).codes
    assert codes is not None
    folds, labels = folds_by_group(patients, FOLDS, seed), int(codes.max()) + 1
    if labels < 2:
        return [Gate("leakage", math.nan), Gate("overlap", math.nan)]
    told = chances_by_others(codes, noise, labels, folds)
    columns = slice(1, None) if labels == 2 else slice(None)
    task = Task(told[:, columns], (codes[:, None] == np.arange(labels))[:, columns])
    value, drawn = bootstrap(lambda weights: task_auroc(task, weights)[:, None], patients, RESAMPLES, seed)
    leakage = percentile_interval(float(value[0]), drawn[:, 0], len(codes))
    shares = np.bincount(codes) / len(codes)
    relative = chances_by_others(codes, z, labels, folds) / shares  # as if all labels were as common
    relative /= relative.sum(axis=1, keepdims=True)
    inside = ((relative >= CHANCES[0]) & (relative <= CHANCES[1])).all(axis=1).mean()
    return [
        Gate("leakage", leakage.value, high=LIMITS["leakage"], interval=(leakage.low, leakage.high)),
        Gate("overlap", float(inside), low=LIMITS["overlap"]),
    ]


def generator_gates(composition: float, quality: Mapping[str, Interval]) -> Sequence[Gate]:
    """Composition and, where an evaluator has looked, effectiveness and off-target change of one attribute."""
    found = [Gate("composition", composition, high=LIMITS["composition"])]
    for name, key, low, high in (
        ("effectiveness", "overshoot", LIMITS["effectiveness"], math.inf),
        ("off_target", "off_target", -math.inf, LIMITS["off_target"]),
    ):
        if key in quality:
            seen = quality[key]
            found.append(Gate(name, seen.value, low, high, (seen.low, seen.high)))
    return found
