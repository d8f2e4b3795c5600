"""What a network makes of a bias: gaps between groups relative to its twin, and the shortcut index.

Statistics are of the mean over seeds, of the share of networks that call a patient positive. The 95 % interval is
a bootstrap over test patients, on whom the twin is scored too, so that it is of the difference. With several seeds
it is widened by Student's interval over them (both margins in quadrature, as for a sum of independent parts: Zou
and Donner 2008); with one it is not over networks.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from causalcxr.bias.bayes import informed, optimum
from causalcxr.metrics.auroc import auroc
from causalcxr.metrics.intervals import Interval, bootstrap, percentile_interval, widened_by_seeds

__all__ = ["DEFINITIONS", "Measured", "Scores", "measure"]

DEFINITIONS = {
    "accuracy": "Share of test films that are called rightly, at the threshold that is best at equal frequencies.",
    "tpr_gap": "Share called positive among those with the finding, group B minus group A, less the twin's.",
    "fpr_gap": "The same among those without the finding.",
    "gap": "Mean of both gaps.",
    "index": "Shortcut index: the gap over that of the best classifier which sees severity and group. 0: none; "
    "1: as large as is best for accuracy; above 1: larger. Not defined at q = 0.5, where the best gap is 0.",
    "attainable_index": "The gap over that of the twin's own answers with log(q / (1 - q)) added in group B and "
    "taken away in A: what is best for somebody who sees no more of the finding than the twin. A ratio of means.",
    "pair_gap": "Share of the same subjects called positive under do(group = B) less that under do(group = A), "
    "mean of those with and without the finding. The film differs by the planted change alone.",
    "pair_shift": "Mean change of the log-odds under do(group = B) from do(group = A), same subjects.",
    "twin_gap": "The twin's own gap, which is noise of the sample.",
    "twin_accuracy": "The twin's accuracy.",
}
_BOUNDS = {"accuracy": (0, 1), "twin_accuracy": (0, 1), "twin_gap": (-1, 1), "pair_gap": (-1, 1)}


@dataclass(frozen=True)
class Scores:
    """Log-odds of the test subjects by seed, `(S, N)` each: under do(group = A), do(group = B), and the twin's."""

    under_a: np.ndarray
    under_b: np.ndarray
    twin: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Statistics by name with intervals over patients; `by_seed` has each seed's value."""

    statistics: dict[str, Interval]
    by_seed: dict[str, list[float]]
    auroc: float
    twin_auroc: float


def measure(
    scores: Scores,
    finding: np.ndarray,
    group: np.ndarray,
    patients: np.ndarray,
    q: float,
    undefined: Collection[str] = (),
) -> Measured:
    """All statistics at one q but those that are not defined there. `finding`, `group` bool `(N,)`.

    A score above 0 calls the finding.
    """
    calls = _calls(scores, group, q)
    left_out = {"index", "attainable_index"} if q == 0.5 else set(undefined)
    names = [name for name in DEFINITIONS if name not in left_out]

    def statistics(weights: np.ndarray, of: dict[str, np.ndarray]) -> np.ndarray:
        found = _statistics(weights, of, finding, group, q)
        return np.stack([found[name] for name in names], axis=1)

    mean = {name: values.mean(0) for name, values in calls.items()}
    values, drawn = bootstrap(lambda weights: statistics(weights, mean), patients)
    n = len(finding)
    ones, seeds = np.ones((1, n)), range(len(scores.twin))
    each = [statistics(ones, {name: values[s] for name, values in calls.items()})[0] for s in seeds]
    by_seed = {name: [float(row[i]) for row in each] for i, name in enumerate(names)}
    over_patients = [percentile_interval(values[i], drawn[:, i], n) for i in range(len(names))]
    intervals = {
        name: widened_by_seeds(interval, by_seed[name], *_BOUNDS.get(name, ()))
        for name, interval in zip(names, over_patients, strict=True)
    }
    own = np.where(group, scores.under_b, scores.under_a)
    areas = [float(np.mean([auroc(row, finding) for row in of])) for of in (own, scores.twin)]
    return Measured(intervals, by_seed, *areas)


def _calls(scores: Scores, group: np.ndarray, q: float) -> dict[str, np.ndarray]:
    """Who is called positive, `(S, N)`, 0 or 1."""
    aware = informed(scores.twin, q)
    raw = {
        "own": np.where(group, scores.under_b, scores.under_a) > 0,
        "under_a": scores.under_a > 0,
        "under_b": scores.under_b > 0,
        "twin": scores.twin > 0,
        "aware": np.where(group, aware[..., 1], aware[..., 0]) > 0,
    }
    shift = scores.under_b.astype(np.float64) - scores.under_a
    return {name: values.astype(np.float64) for name, values in raw.items()} | {"shift": shift}


def _statistics(
    weights: np.ndarray, calls: dict[str, np.ndarray], finding: np.ndarray, group: np.ndarray, q: float
) -> dict[str, np.ndarray]:
    """By name `(R,)`, under weights of the rows `(R, N)`; calls `(N,)`."""
    total = weights.sum(1)

    def rate(name: str, rows: np.ndarray) -> np.ndarray:
        below = weights @ rows
        return np.divide(weights @ (rows * calls[name]), below, out=np.full(len(below), np.nan), where=below > 0)

    def gaps(name: str) -> list[np.ndarray]:
        return [rate(name, of & group) - rate(name, of & ~group) for of in (finding, ~finding)]

    own, twin, aware = (gaps(name) for name in ("own", "twin", "aware"))
    gap, twin_gap = (own[0] + own[1]) / 2, (twin[0] + twin[1]) / 2
    pairs = [rate("under_b", of) - rate("under_a", of) for of in (finding, ~finding)]
    found = {
        "accuracy": weights @ (calls["own"] * finding + (1 - calls["own"]) * ~finding) / total,
        "tpr_gap": own[0] - twin[0],
        "fpr_gap": own[1] - twin[1],
        "gap": gap - twin_gap,
        "pair_gap": (pairs[0] + pairs[1]) / 2,
        "pair_shift": weights @ calls["shift"] / total,
        "twin_gap": twin_gap,
        "twin_accuracy": weights @ (calls["twin"] * finding + (1 - calls["twin"]) * ~finding) / total,
    }
    if q > 0.5:
        found["index"] = found["gap"] / optimum(q).gap
        best = (aware[0] + aware[1]) / 2 - twin_gap
        found["attainable_index"] = np.divide(found["gap"], best, out=np.full(len(best), np.nan), where=best != 0)
    return found
