"""Does a score depend on an attribute, given what else there is to know? Tests on arrays.

    H0: E[Y | A, Z] = E[Y | Z]         effect: E[(E[Y | A, Z] - E[Y | Z])^2]

`Y` is the score of a classifier, `A` the attribute, and `Z` what describes the subject apart from it. A patient
may have several rows: `groups` says whose a row is.

The default is the **projected covariance measure** (Lundborg, Kim, Shah and Samworth 2024, Annals of Statistics).
Half of the patients learn the direction `g - h` in which the score depends on the attribute. The other half tests
whether the residual of the score on Z correlates with it. Each half learns once and tests once. The direction that
one half learns is the other's test, so the two statistics hang together, and their sum would reject too often.
Therefore their p-values, and those of several splits into halves, are merged by the Cauchy combination (Liu and
Xie 2020), whose level hardly depends on that. Residuals, and the chances of the attribute, are of regressions on
other patients (five folds).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalcxr.audit.nuisance import (
    Attribute,
    Regression,
    chances_by_others,
    expected_by_others,
    folds_by_group,
)
from causalcxr.metrics.p_values import chi_square_tail, sums_by_patient
from causalcxr.support.errors import DataError

__all__ = ["FEWEST", "Dependence", "as_published", "gcm", "pcm"]

FEWEST = 30  # patients of a test, or of a group
MOST_LABELS = 20
FOLDS = 5  # of patients, for the residuals


@dataclass(frozen=True)
class Dependence:
    """A p-value of H0, an estimate of the effect in squared units of the score, and what they are taken over.

    Under H0 the effect is 0 but for noise, of either sign.
    """

    test: str
    p: float
    effect: float
    rows: int
    patients: int


def pcm(y: Any, a: Any, z: Any, groups: Any = None, splits: int = 3, seed: int = 0) -> Dependence:
    """The projected covariance measure.

    `y` `(N,)`: scores. `a` `(N,)`: the attribute; floating-point numbers are numbers, all else labels. `z`
    `(N, k)`. `groups` `(N,)`: whose row it is. Raises DataError: arrays that do not fit, values that are not
    finite, a constant score or attribute, too few patients.
    """
    if splits < 1:
        raise DataError(f"audit: splits is {splits}; expected at least 1")
    rows = _Rows.read(y, a, z, groups, seed)
    p_values, effects = [], []
    for split in range(splits):
        half = folds_by_group(rows.patients, 2, seed + split) == 0
        for learn in (half, ~half):
            products = rows.left[~learn] * _direction(rows, learn, seed)
            p_values.append(_one_sided(products, rows.patients[~learn]))
            effects.append(products.mean())
    return rows.found("pcm", _merged(p_values), float(np.mean(effects)))


def gcm(y: Any, a: Any, z: Any, groups: Any = None, seed: int = 0) -> Dependence:
    """The generalised covariance measure (Shah and Peters 2020). It sees no effect that averages out over Z.

    Takes and raises what `pcm` does. The effect is the sum of squared covariances with the attribute's columns.
    """
    rows = _Rows.read(y, a, z, groups, seed)
    if rows.chances is None:
        expected = expected_by_others(rows.attribute.columns[:, 0], rows.given, rows.folds, seed)[:, None]
    else:
        expected = rows.chances[:, 1:]
    products = rows.left[:, None] * (rows.attribute.columns - expected)
    return rows.found("gcm", _chi_square(products, rows.patients), float((products.mean(axis=0) ** 2).sum()))


def as_published(y: Any, a: Any, z: Any, groups: Any = None, seed: int = 0) -> Dependence:
    """The statistic of Ma et al. 2025 (arXiv:2504.19621): `Y g` against `Y h`, paired t, fitted in sample.

    **It does not hold its level**: under H0 the difference is nothing but the regressions' errors, which do not
    vanish beside its own standard error. It is here for comparison. Takes and raises what `pcm` does; the groups
    play no part.
    """
    score, attribute, given, patients = _read(y, a, z, groups)
    g = Regression(score, given, attribute.columns, seed)(given, attribute.columns)
    products = score * (g - Regression(score, given, seed=seed)(given))
    tail = _one_sided(products, np.arange(len(score)))
    p = 2 * min(tail, 1 - tail)
    return Dependence("as_published", p, float(products.mean()), len(score), len(np.unique(patients)))


@dataclass(frozen=True)
class _Rows:
    """`left` `(N,)`: residuals of the score on Z. `chances` `(N, labels)`: of labels given Z; None of a number."""

    score: np.ndarray
    attribute: Attribute
    given: np.ndarray
    patients: np.ndarray
    folds: np.ndarray
    left: np.ndarray
    chances: np.ndarray | None

    @classmethod
    def read(cls, y: Any, a: Any, z: Any, groups: Any, seed: int) -> "_Rows":
        score, attribute, given, patients = _read(y, a, z, groups)
        folds, chances = folds_by_group(patients, FOLDS, seed), None
        if attribute.codes is not None:
            chances = chances_by_others(attribute.codes, given, len(attribute.labels), folds)
        left = score - expected_by_others(score, given, folds, seed)
        return cls(score, attribute, given, patients, folds, left, chances)

    def found(self, test: str, p: float, effect: float) -> Dependence:
        return Dependence(test, p, effect, len(self.score), len(np.unique(self.patients)))


def _direction(rows: _Rows, learn: np.ndarray, seed: int) -> np.ndarray:
    """Of the rows that do not learn: the expected score given A and Z, less its mean given Z.

    For labels that mean is taken over their chances, so that errors of the regression have no part in it.
    """
    test, columns, given = ~learn, rows.attribute.columns, rows.given
    g = Regression(rows.score[learn], given[learn], columns[learn], seed)
    if rows.attribute.codes is None or rows.chances is None:
        own = g(given[learn], columns[learn])
        return g(given[test], columns[test]) - Regression(own, given[learn], seed=seed)(given[test])
    codes = rows.attribute.codes[test]
    labels = range(len(rows.attribute.labels))
    under = np.stack(
        [g(given[test], rows.attribute.columns_of(np.full_like(codes, code))) for code in labels], axis=1
    )
    return under[np.arange(len(codes)), codes] - (rows.chances[test] * under).sum(axis=1)


def _one_sided(products: np.ndarray, patients: np.ndarray) -> float:
    """P-value of a mean of 0 against one above it; rows of a patient are summed before their spread is taken."""
    sums = sums_by_patient(products[:, None], np.unique(patients, return_inverse=True)[1])
    spread = sums.std() * math.sqrt(len(sums))
    return 0.5 * math.erfc(sums.sum() / spread / math.sqrt(2)) if spread > 0 else 1.0


def _chi_square(products: np.ndarray, patients: np.ndarray) -> float:
    """P-value of means `(k,)` of 0."""
    sums = sums_by_patient(products, np.unique(patients, return_inverse=True)[1])
    total, centred = sums.sum(axis=0), sums - sums.mean(axis=0)
    statistic = float(total @ np.linalg.pinv(centred.T @ centred, hermitian=True) @ total)
    return chi_square_tail(statistic, len(total))


def _merged(p_values: list[float]) -> float:
    """The Cauchy combination of p-values."""
    angles = math.pi * (0.5 - np.clip(p_values, 1e-15, 1 - 1e-15))
    return float(0.5 - math.atan(np.tan(angles).mean()) / math.pi)


def _read(y: Any, a: Any, z: Any, groups: Any) -> tuple[np.ndarray, Attribute, np.ndarray, np.ndarray]:
    score, given, attribute = _numbers("y", y), _numbers("z", z), np.asarray(a)
    given = given[:, None] if given.ndim == 1 else given
    patients = np.arange(score.size) if groups is None else np.asarray(groups)
    for name, one, dimensions in (("y", score, 1), ("a", attribute, 1), ("z", given, 2), ("groups", patients, 1)):
        if one.ndim != dimensions or 0 in one.shape[1:]:
            shape = "one number a row" if dimensions == 1 else "one row of numbers for each"
            got = "x".join(map(str, one.shape)) or "a single value"
            raise DataError(f"audit: {name} is {got}; expected {shape}")
        if len(one) != len(score):
            raise DataError(f"audit: {name} has {len(one)} rows and y {len(score)}; expected one row a score")
        if missing := _missing(one):
            raise DataError(f"audit: {name} is not finite in {missing} of {len(one)} rows; leave these rows out")
    if (n := len(np.unique(patients))) < FEWEST:
        raise DataError(f"audit: {n} patients; expected at least {FEWEST}")
    for name, one in (("y", score), ("a", attribute)):
        if len(np.unique(one)) < 2:
            raise DataError(f"audit: {name} is constant; there is nothing to test")
    if attribute.dtype.kind != "f" and (n := len(np.unique(attribute))) > MOST_LABELS:
        raise DataError(
            f"audit: a has {n} different labels, and at most {MOST_LABELS} are taken; if these are numbers, give "
            "floating-point ones"
        )
    return score, Attribute(attribute), given, patients


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"audit: {name} has something in it that is no number") from None


def _missing(values: np.ndarray) -> int:
    """How many rows have a value that is not there."""
    if values.dtype.kind == "f":
        return int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
    if values.dtype.kind == "O":
        return sum(value is None or value != value for value in values)
    return 0
