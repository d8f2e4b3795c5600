"""Does a fitted mechanism describe rows that it hasn't seen? Predicted shares against observed ones, by group.

A label has the probability that the mechanism gives it. A number has its probability integral transform, the
share of the mechanism's law below it: uniform on [0, 1] if the mechanism is right, so that a tenth of the rows is
below .1 and nine tenths below .9 (Dawid 1984). Both must hold in every group of the parents, not only on average.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causalcxr.data.cohort import Split
from causalcxr.graph import Variable
from causalcxr.mechanisms.base import Mechanism
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch

__all__ = ["TOLERANCE", "Calibration", "check_calibration", "integral_transform"]

TOLERANCE = 0.02  # of a share: no fit is exact, and with enough rows any gap would be found
THRESHOLDS = np.arange(1, 10) / 10
FIFTHS = (0.2, 0.4, 0.6, 0.8)
LEAST_EXPECTED = 20.0  # of the variance of a count, for its law to be near the normal


@dataclass(frozen=True)
class Calibration:
    """The worst of a mechanism's groups: `predicted` and `observed` share of `event`, among the rows `group`.

    `p` is corrected for the number of `comparisons` of this mechanism; without any (too few rows) it is 1.
    """

    variable: str
    group: str
    event: str
    predicted: float
    observed: float
    comparisons: int
    p: float
    adjusted: float = math.nan  # p corrected for all that was tested with it


def check_calibration(
    scm: StructuralCausalModel, name: str, held_out: Split, trained_on: float, tolerance: float = TOLERANCE
) -> Calibration:
    """Compare one mechanism with the rows `held_out`, having been fitted to `trained_on` rows (inf: it is known).

    The hypothesis is that every share is right up to `tolerance`. Errors are those of patients, not rows, and grow
    by what the training rows leave open: a share is known from them no better than from as many held-out ones.
    """
    mechanism, rows = scm.mechanism(name), held_out.attributes
    events, predicted, observed = _shares(mechanism, rows)
    patients = np.unique(held_out.patients, return_inverse=True)[1]
    inflation = 1 + len(held_out) / trained_on
    worst, comparisons = (1.0, 1.0, "all rows", "", 0.0, 0.0), 0
    for group, members in _groups(mechanism, rows, events, predicted):
        if not members.any():
            continue
        means, errors = _gaps(predicted[members], observed[members], patients[members])
        for k in np.flatnonzero((predicted[members] * (1 - predicted[members])).sum(axis=0) >= LEAST_EXPECTED):
            excess = max(0.0, abs(means[k]) - tolerance) / (errors[k] * math.sqrt(inflation))
            p, share = math.erfc(excess / math.sqrt(2)), float(predicted[members, k].mean())
            found = (p, -abs(float(means[k])), group, events[k], share, share + float(means[k]))
            worst, comparisons = min(worst, found), comparisons + 1
    p, _, group, event, share, seen = worst
    return Calibration(name, group, event, share, seen, comparisons, min(1.0, p * max(1, comparisons)))


@torch.no_grad()
def integral_transform(mechanism: Mechanism, rows: Batch, seed: int = 0) -> np.ndarray:
    """The share of the mechanism's law below each value, `(N,)`; uniform if the mechanism is right.

    A value stands for all that would have been recorded as it: the cell that reaches half way to its neighbours
    among the values that occur. A point of its cell is drawn (Smith 1985), so that ages in whole years come out
    uniform too; where no two values are alike the cells are too small to matter.
    """
    value = rows[mechanism.variable.name]
    distinct, index = torch.unique(value, return_inverse=True)
    middles = (distinct[1:] + distinct[:-1]) / 2
    low, high = mechanism.variable.bounds
    ends = torch.cat([middles.new_tensor([low]), middles, middles.new_tensor([high])])
    below, above = (_share_below(mechanism, ends[index + side], rows) for side in (0, 1))
    below, above = np.where(index == 0, 0.0, below), np.where(index == len(distinct) - 1, 1.0, above)
    return below + (above - below) * np.random.default_rng(seed).random(len(value))


def _share_below(mechanism: Mechanism, value: Tensor, rows: Batch) -> np.ndarray:
    """The noise is standard normal and the value grows with it."""
    return torch.special.ndtr(mechanism.abduct(value, rows).double()).numpy()


def _shares(mechanism: Mechanism, rows: Batch) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Events in words, their predicted probabilities `(N, k)`, and whether they happened `(N, k)`."""
    variable, n = mechanism.variable, len(rows[mechanism.variable.name])
    if not variable.is_discrete:
        transformed = integral_transform(mechanism, rows)
        events = [f"below the {level:.0%} quantile" for level in THRESHOLDS]
        return events, np.tile(THRESHOLDS, (n, 1)), transformed[:, None] <= THRESHOLDS
    counted = range(1 if variable.kind == "binary" else 0, len(variable.labels))
    with torch.no_grad():
        columns = [mechanism.log_prob(torch.full((n,), k), rows).exp().double().numpy() for k in counted]
    observed = rows[variable.name].numpy()[:, None] == np.array(counted)
    return [variable.labels[k] for k in counted], np.stack(columns, axis=1), observed


def _groups(
    mechanism: Mechanism, rows: Batch, events: list[str], predicted: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Groups in words, and whether a row is in it `(N,)`: all, by parent, and by predicted probability."""
    yield "all rows", np.ones(len(predicted), dtype=bool)
    if not mechanism.parents:
        return
    for parent in mechanism.parents:
        yield from _groups_of(parent, rows[parent.name].numpy())
    if mechanism.variable.is_discrete:
        for event, column in zip(events, predicted.T, strict=True):
            for fifth in _fifths(column):
                low, high = column[fifth].min(), column[fifth].max()
                yield f"rows where {event} has probability {low:.2f} to {high:.2f}", fifth


def _groups_of(parent: Variable, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if parent.is_discrete:
        for k, label in enumerate(parent.labels):
            yield f"rows where {parent.name} is {label}", values == k
    else:
        for fifth in _fifths(values):
            low, high = values[fifth].min(), values[fifth].max()
            words = f"rows where {parent.name} is {low:.3g} to {high:.3g} {parent.unit}".rstrip()
            yield words, fifth


def _fifths(values: np.ndarray) -> Iterator[np.ndarray]:
    """About a fifth of the rows each; fewer groups where many values are alike."""
    number = np.searchsorted(np.unique(np.quantile(values, FIFTHS)), values)
    for k in np.unique(number):
        yield number == k


def _gaps(predicted: np.ndarray, observed: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of observed minus predicted `(k,)`, and its standard error if its expectation is 0.

    The error is that of patients who are unlike each other, and no less than that of independent rows.
    """
    differences = observed - predicted
    sums = np.stack([np.bincount(patients, weights=column) for column in differences.T], axis=1)
    variance = np.maximum((sums**2).sum(axis=0), (predicted * (1 - predicted)).sum(axis=0))
    return differences.mean(axis=0), np.sqrt(variance) / len(differences)
