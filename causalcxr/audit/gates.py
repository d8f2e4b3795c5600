"""What must hold of the generator, and of the patients, before a contrast can be judged.

Leakage: the description of a patient's noise must not tell the attribute; where it does, it holds something that
the attribute causes, and conditioning on that feigns a dependence. Overlap: all else that is known must leave both
values possible. Composition: doing nothing must change nothing. Effectiveness and off-target change: as the
evaluator sees the counterfactuals.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from causalcxr.audit.nuisance import Attribute, chances_by_others, folds_by_group
from causalcxr.audit.verdict import Gate
from causalcxr.metrics.auroc import Task, task_auroc

__all__ = ["LIMITS", "generator_gates", "route_gates"]

LIMITS = {
    "leakage": 0.6,  # AUROC of the attribute from the noise, 0.5 being none
    "overlap": 0.95,  # share of rows with a chance of the other value between the two ends below
    "composition": 0.5,  # grey levels
    "effectiveness": -5.0,  # overshoot, AUROC points
    "off_target": 2.0,  # mean absolute amplification of the other attributes, AUROC points
}
CHANCES = (0.02, 0.98)
FOLDS = 5


def route_gates(a: np.ndarray, noise: np.ndarray, z: np.ndarray, patients: np.ndarray, seed: int) -> list[Gate]:
    """Leakage and overlap of an attribute `(N,)`. `z` `(N, k)`: all that is conditioned on, `noise` among it."""
    halves = a if a.dtype.kind != "f" else (a > np.median(a)).astype(int)
    codes = Attribute(halves).codes
    assert codes is not None
    folds, labels = folds_by_group(patients, FOLDS, seed), int(codes.max()) + 1
    from_noise = chances_by_others(codes, noise, labels, folds)
    answers = codes[:, None] == np.arange(labels)
    columns = slice(1, None) if labels == 2 else slice(None)
    told = task_auroc(Task(from_noise[:, columns], answers[:, columns]), np.ones((1, len(codes))))[0]
    chances = chances_by_others(codes, z, labels, folds)
    inside = ((chances >= CHANCES[0]) & (chances <= CHANCES[1])).all(axis=1).mean()
    return [
        Gate("leakage", float(told), high=LIMITS["leakage"]),
        Gate("overlap", float(inside), low=LIMITS["overlap"]),
    ]


def generator_gates(composition: float, quality: Mapping[str, float]) -> Sequence[Gate]:
    """Composition and, where an evaluator has looked, effectiveness and off-target change of one attribute."""
    found = [Gate("composition", composition, high=LIMITS["composition"])]
    if quality:
        found.append(Gate("effectiveness", quality["overshoot"], low=LIMITS["effectiveness"]))
        found.append(Gate("off_target", quality["off_target"], high=LIMITS["off_target"]))
    return found
