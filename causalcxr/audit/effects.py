"""Route "generate": by how much a score changes when the attribute of the same patients does.

    Delta_i = f(x_i(do A = a')) - f(x_i(do A = a))        placebo: the same from two abductions of one of the two

The images on both sides come from the same noise. A change of the score by a placebo is no effect of the
attribute, so absolute shifts and flips are reported less those of the placebo. Intervals are bootstrapped by
patient; the p-value is that of sign flips of patients: without an effect a patient's shift is as likely upwards as
downwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from causalcxr.metrics.auroc import Task, task_auroc
from causalcxr.metrics.intervals import Interval, bootstrap, percentile_interval
from causalcxr.metrics.p_values import sums_by_patient

__all__ = ["EFFECTS", "Effect", "measure_effect", "sign_flip_p"]

EFFECTS = {
    "shift": "mean change of the score between the counterfactuals",
    "leak": "by how much real patients contradict the shift; 0 if the counterfactuals are right",
    "checked": "shift and leak: the mean change that real patients show, all other causes of the image held",
    "absolute": "mean absolute change of the score, less that of the placebo",
    "flips": "share of patients whose decision at the threshold changes, less that of the placebo, in points",
    "flagged": "change of the share of patients above the threshold, in points",
    "sensitivity": "change of the share above the threshold among patients with the finding, in points",
    "false_positives": "change of the share above the threshold among patients without the finding, in points",
    "auroc": "change of the AUROC, in points",
    "placebo": "mean absolute change of the score by the placebo",
}
_SUBGROUPS = ("with the finding", "without the finding")
_FLIPS = 9999  # of signs
_AT_ONCE = 1 << 22  # signs in memory


@dataclass(frozen=True)
class Effect:
    """Of one contrast: the statistics of `EFFECTS` with 95 % intervals, and what the verdict needs.

    `contradicted`: by real patients, for the 99 % interval of the leak excludes 0. `within`: the 90 % interval of
    the shift, or of the checked one if that is so. `subgroups`: the shift of patients with and without finding.
    """

    statistics: Mapping[str, Interval]
    within: tuple[float, float]
    p: float
    contradicted: bool
    subgroups: Mapping[str, Interval]

    @property
    def stands(self) -> bool:
        """Whether there is a shift by what real patients say, too."""
        checked = self.statistics["checked"]
        return not self.contradicted or checked.low > 0 or checked.high < 0


def measure_effect(
    before: np.ndarray,
    after: np.ndarray,
    placebo: tuple[np.ndarray, np.ndarray],
    positive: np.ndarray | None,
    threshold: float,
    patients: np.ndarray,
    leak: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> Effect:
    """The effect of one contrast on one score, all arrays `(N,)`.

    `before`, `after`: scores of the two counterfactuals. `placebo`: scores of one and the same counterfactual from
    two abductions. `positive`: who has the finding, if that is known. A patient is flagged above `threshold`.
    `leak`: of the score between the counterfactuals, as `leak_of` gives it.
    """
    means = _means(before, after, placebo, positive, threshold)
    tasks = None if positive is None else [Task(side[:, None], positive[:, None]) for side in (before, after)]

    def statistics(weights: np.ndarray) -> np.ndarray:
        columns = [_mean(values, among, weights) for values, among in means.values()]
        columns += [leaked := leak(weights), columns[0] + leaked]
        if tasks is not None:
            columns.append(100 * (task_auroc(tasks[1], weights) - task_auroc(tasks[0], weights)))
        return np.stack(columns, axis=1)

    values, columns = bootstrap(statistics, patients, seed=seed)
    names = [*means, "leak", "checked", *(["auroc"] if tasks is not None else [])]
    drawn = dict(zip(names, columns.T, strict=True))
    found = {
        name: percentile_interval(float(value), drawn[name], _rows_of(means.get(name), len(before)))
        for name, value in zip(names, values, strict=True)
    }
    smallest, largest = np.quantile(drawn["leak"], [0.005, 0.995])
    contradicted = bool(smallest > 0 or largest < 0)
    low, high = np.quantile(drawn["checked" if contradicted else "shift"], [0.05, 0.95])
    subgroups = {name: found.pop(name) for name in _SUBGROUPS if name in found}
    p = sign_flip_p(after - before, patients, seed)
    return Effect(found, (float(low), float(high)), p, contradicted, subgroups)


def sign_flip_p(shift: np.ndarray, patients: np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value of a mean of 0 of shifts `(N,)`, by flipping the signs of patients `(N,)`."""
    sums = sums_by_patient(shift[:, None], np.unique(patients, return_inverse=True)[1])[:, 0]
    observed, generator = abs(sums.sum()), np.random.default_rng(seed)
    if not np.abs(sums).sum() > 0:
        return 1.0
    block, reached, done = max(1, _AT_ONCE // len(sums)), 0, 0
    while done < _FLIPS:
        count = min(block, _FLIPS - done)
        signs = 2 * generator.integers(2, size=(count, len(sums)), dtype=np.int8) - 1
        reached += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
        done += count
    return (1 + reached) / (1 + _FLIPS)


_Mean = tuple[np.ndarray, np.ndarray | None]  # values by row, and the rows that they are taken over; None: all


def _means(
    before: np.ndarray,
    after: np.ndarray,
    placebo: tuple[np.ndarray, np.ndarray],
    positive: np.ndarray | None,
    threshold: float,
) -> dict[str, _Mean]:
    """What is a mean over rows; the shift is the first."""
    shift, noise = after - before, placebo[1] - placebo[0]
    flagged, by_noise = ([100.0 * (side > threshold) for side in pair] for pair in ((before, after), placebo))
    risen = flagged[1] - flagged[0]
    found: dict[str, _Mean] = {
        "shift": (shift, None),
        "absolute": (np.abs(shift) - np.abs(noise), None),
        "flips": (np.abs(risen) - np.abs(by_noise[1] - by_noise[0]), None),
        "flagged": (risen, None),
        "placebo": (np.abs(noise), None),
    }
    if positive is not None:
        found |= {"sensitivity": (risen, positive), "false_positives": (risen, ~positive)}
        found |= dict(zip(_SUBGROUPS, ((shift, positive), (shift, ~positive)), strict=True))
    return found


def _rows_of(mean: _Mean | None, n: int) -> int:
    """How many rows a statistic is taken over."""
    return n if mean is None or mean[1] is None else int(mean[1].sum())


def _mean(values: np.ndarray, among: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    if among is None:
        return weights @ values / weights.sum(axis=1)
    total = weights @ among
    return np.divide(weights @ (values * among), total, out=np.full(len(total), np.nan), where=total > 0)
