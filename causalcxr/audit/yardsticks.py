"""Group fairness of decisions, for comparison: how much more often one group is flagged than another.

These compare different people, and say nothing about what would change if a person were of another group.
"""

from typing import Any

import numpy as np

from causalcxr.audit.dependence import FEWEST
from causalcxr.metrics.intervals import (
    RESAMPLES,
    Interval,
    absolute_interval,
    bootstrap,
    percentile_interval,
)
from causalcxr.support.errors import DataError

__all__ = ["group_gaps"]


def group_gaps(
    flagged: Any,
    y_true: Any,
    a: Any,
    group: Any,
    reference: Any,
    patients: Any = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Rates of one group minus those of another, with 95 % intervals by patient.

    `flagged`, `y_true` `(N,)`, bool or 0 and 1: decision and finding. `a` `(N,)`: the groups, of which `group` and
    `reference` are compared. `patients` `(N,)`: whose row it is.

    `demographic_parity`: of flagged rows. `true_positive_rate`, `false_positive_rate`: of flagged rows among those
    with the finding, and without. `equalised_odds`: the larger of these two, absolute. Raises DataError: a group
    with too few patients, or without one of the findings.
    """
    flagged, positive = _as_bool("flagged", flagged), _as_bool("y_true", y_true)
    a, patients = np.asarray(a), np.arange(len(flagged)) if patients is None else np.asarray(patients)
    if not len(flagged) == len(positive) == len(a) == len(patients):
        raise DataError(
            f"audit: flagged, y_true, a and patients have {len(flagged)}, {len(positive)}, {len(a)} and "
            f"{len(patients)} rows; expected as many of each"
        )
    sides = [a == group, a == reference]
    for name, side in zip((group, reference), sides, strict=True):
        if (n := len(np.unique(patients[side]))) < FEWEST:
            raise DataError(f"audit: group '{name}' has {n} patients; expected at least {FEWEST}")
        if positive[side].all() or not positive[side].any():
            one = "none with" if not positive[side].any() else "none without"
            raise DataError(f"audit: group '{name}' has {one} the finding; its error rates are not defined")

    def gap(weights: np.ndarray, among: np.ndarray) -> np.ndarray:
        rates = []
        for side in sides:
            total = weights @ (among & side)
            hit = weights @ (flagged & among & side)
            rates.append(np.divide(hit, total, out=np.full(len(total), np.nan), where=total > 0))
        return rates[0] - rates[1]

    def statistics(weights: np.ndarray) -> np.ndarray:
        parity, tpr, fpr = (gap(weights, among) for among in (np.ones_like(positive), positive, ~positive))
        return np.stack([parity, tpr, fpr, np.maximum(np.abs(tpr), np.abs(fpr))], axis=1)

    compared = sides[0] | sides[1]
    values, drawn = bootstrap(statistics, patients, resamples, seed)
    names = ("demographic_parity", "true_positive_rate", "false_positive_rate", "equalised_odds")
    ways = (percentile_interval,) * 3 + (_widest,)
    n = int(compared.sum())
    return {
        name: way(float(value), column, n)
        for name, way, value, column in zip(names, ways, values, drawn.T, strict=True)
    }


def _as_bool(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(f"audit: {name} is no decision; expected one row of True and False, or 0 and 1")
    return array.astype(bool)


def _widest(value: float, drawn: np.ndarray, n: int) -> Interval:
    """Of an absolute value: from the lower end of the basic interval, which reaches 0, to the upper percentile."""
    lower, upper = absolute_interval(value, drawn, n), percentile_interval(value, drawn, n)
    return Interval(value, lower.low, max(upper.high, value), n)
