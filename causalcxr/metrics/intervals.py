"""95 % bootstrap intervals clustered by patient: images of one patient are drawn or left out together.

Every resample draws as many patients as there are, with replacement; a patient's rows then count as often as the
patient was drawn. Percentile intervals (Efron 1979; Field and Welsh 2007 for the cluster bootstrap).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

__all__ = [
    "Interval",
    "absolute_interval",
    "bootstrap",
    "mean_interval",
    "median_interval",
    "percentile_interval",
    "ratio_interval",
    "seed_interval",
    "widened_by_seeds",
]

LEVEL = 0.95
RESAMPLES = 1000
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # Student's t
NUMBERS_AT_ONCE = 1 << 23  # bounds the memory of a block of resamples


@dataclass(frozen=True)
class Interval:
    """A statistic, the ends of its 95 % interval, and the number of rows it was taken over. Without rows: NaN."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Any, patients: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of `values` `(N,)`, rows with NaN left out. `patients` `(N,)` says whose row it is."""
    values = np.asarray(values, dtype=np.float64)
    return ratio_interval(values, np.where(np.isnan(values), np.nan, 1.0), patients, resamples, seed)


def ratio_interval(
    numerators: Any, denominators: Any, patients: Any, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The sum of `numerators` over the sum of `denominators`, `(N,)` each, rows with a NaN left out."""
    both = np.stack([np.asarray(x, dtype=np.float64) for x in (numerators, denominators)])
    rows, cluster = _complete_rows(both, patients)
    if rows.shape[1] == 0 or rows[1].sum() == 0:
        return Interval(np.nan, np.nan, np.nan, rows.shape[1])
    sums = np.stack([np.bincount(cluster, weights=row) for row in rows])  # (2, patients)

    def statistic(counts: np.ndarray) -> np.ndarray:
        above, below = counts @ sums[0], counts @ sums[1]
        return np.divide(above, below, out=np.full(len(counts), np.nan), where=below != 0)

    low, high = _quantiles(statistic, sums.shape[1], sums.shape[1], resamples, seed)
    return Interval(float(rows[0].sum() / rows[1].sum()), low, high, rows.shape[1])


def median_interval(values: Any, patients: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The (lower) median of `values` `(N,)`, rows with NaN left out."""
    rows, cluster = _complete_rows(np.asarray(values, dtype=np.float64)[None], patients)
    n = rows.shape[1]
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    order = np.argsort(rows[0], kind="stable")
    ordered, cluster = rows[0][order], cluster[order]

    def statistic(counts: np.ndarray) -> np.ndarray:
        below = counts[:, cluster].cumsum(axis=1)
        return ordered[(2 * below >= below[:, -1:]).argmax(axis=1)]

    low, high = _quantiles(statistic, int(cluster.max()) + 1, n, resamples, seed)
    return Interval(float(ordered[(n - 1) // 2]), low, high, n)


def bootstrap(
    statistics: Callable[[np.ndarray], np.ndarray], patients: Any, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Several statistics at once: their values `(S,)` and those of every resample `(R, S)`.

    `statistics` maps weights of the rows `(R, N)` to `(R, S)`. The resamples follow from the patients and the seed
    alone, so that those of two calls belong together, one by one.
    """
    cluster = np.unique(np.asarray(patients), return_inverse=True)[1]
    n, k = len(cluster), int(cluster.max()) + 1
    generator, block, drawn = np.random.default_rng(seed), max(1, NUMBERS_AT_ONCE // n), []
    for start in range(0, resamples, block):
        counts = _multinomial(generator, min(block, resamples - start), k)
        drawn.append(statistics(counts[:, cluster].astype(np.float64)))
    return statistics(np.ones((1, n)))[0], np.concatenate(drawn)


def percentile_interval(value: float, drawn: np.ndarray, n: int) -> Interval:
    """The interval of a statistic from its resamples `(R,)`; those without an answer (NaN) are left out."""
    if np.isnan(value) or np.isnan(drawn).all():
        return Interval(np.nan, np.nan, np.nan, n)
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high), n)


def absolute_interval(value: float, drawn: np.ndarray, n: int) -> Interval:
    """The basic ("reversed") interval, cut at 0, of a mean of absolute values.

    Noise only ever adds to an absolute value, in the data and once more in every resample. The percentile interval
    doubles that bias; the basic one takes it away. It is widened to hold the value itself.
    """
    found = percentile_interval(value, drawn, n)
    return Interval(found.value, max(0.0, 2 * value - found.high), max(value, 2 * value - found.low), n)


def seed_interval(values: Sequence[float]) -> Interval:
    """The mean over seeds with Student's 95 % interval; without one for a single seed."""
    mean, k = float(np.mean(values)), len(values)
    if k < 2 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, k)
    half = _student(k) * stdev(values) / k**0.5
    return Interval(mean, mean - half, mean + half, k)


def widened_by_seeds(
    interval: Interval, by_seed: Sequence[float], least: float = -np.inf, most: float = np.inf
) -> Interval:
    """An interval over patients of a mean over seeds, wider by what seeds differ, and within `least` and `most`.

    Both margins in quadrature, as for a sum of independent parts (Zou and Donner 2008); of one seed as it is.
    """
    seeds = seed_interval(by_seed)
    if np.isnan(seeds.high) or np.isnan(interval.high):
        return interval
    value, half = interval.value, seeds.high - seeds.value
    low, high = (float(np.hypot(interval.value - end, half)) for end in (interval.low, interval.high))
    return Interval(value, float(max(value - low, least)), float(min(value + high, most)), interval.n)


def _student(k: int) -> float:
    """The 97.5 % quantile of Student's t of k - 1 degrees of freedom; for many by expansion of the normal's."""
    z, freedom = 1.959964, k - 1
    return _T.get(k) or z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _complete_rows(values: np.ndarray, patients: Any) -> tuple[np.ndarray, np.ndarray]:
    """The columns of `values` `(k, N)` without NaN, and for each the number of its patient."""
    patients = np.asarray(patients)
    if values.shape[1:] != patients.shape:
        raise ValueError(f"expected one patient per row, got {values.shape[1]} rows and {patients.shape} patients")
    complete = ~np.isnan(values).any(axis=0)
    return values[:, complete], np.unique(patients[complete], return_inverse=True)[1]


def _quantiles(
    statistic: Callable[[np.ndarray], np.ndarray], patients: int, width: int, resamples: int, seed: int
) -> tuple[float, float]:
    """The interval's ends. `statistic` maps counts `(R, patients)` to `(R,)`, handling `width` numbers a row."""
    generator, block, drawn = np.random.default_rng(seed), max(1, NUMBERS_AT_ONCE // width), []
    for start in range(0, resamples, block):
        drawn.append(statistic(_multinomial(generator, min(block, resamples - start), patients)))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _multinomial(generator: np.random.Generator, resamples: int, patients: int) -> np.ndarray:
    """How often each patient is drawn, `(resamples, patients)`; ten times faster than numpy's own multinomial."""
    drawn = generator.integers(patients, size=(resamples, patients)) + patients * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * patients).reshape(resamples, patients)
