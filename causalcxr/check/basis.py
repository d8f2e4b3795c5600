"""Attributes as functions that a regression can use: indicators of labels, polynomials of ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from causalcxr.graph import Variable
from causalcxr.support.errors import DataError

__all__ = ["Design", "features", "regression_design"]

RARE = 20  # a label in fewer rows than this is taken together with the most common one
DEGREE = 3  # of the polynomials in which a dependence is looked for
MOST_COLUMNS = 250  # of a regression
ROWS_A_COLUMN = 10
BLOCK = 1 << 15  # rows whose columns are held at once


def features(variable: Variable, values: np.ndarray, degree: int = DEGREE) -> np.ndarray:
    """Values `(N,)` to functions of them `(N, k)`, bounded and without the constant.

    A label gives its indicator, but for the most common label and those in fewer than 20 rows. A number gives
    Legendre polynomials of its rank, so that neither its unit nor its tails matter.
    """
    if variable.is_discrete:
        counts = np.bincount(values, minlength=len(variable.labels))
        chosen = [k for k in range(len(counts)) if k != counts.argmax() and counts[k] >= RARE]
        return (values[:, None] == np.array(chosen, dtype=values.dtype)).astype(np.float64)
    return np.polynomial.legendre.legvander(2 * _ranks(values) - 1, degree)[:, 1:]


@dataclass(frozen=True)
class Design:
    """The columns of a regression: all products of functions of different variables, up to `factors` of them."""

    parts: Sequence[np.ndarray]  # functions of each variable, (N, k)
    factors: int

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows after the others, so that memory holds few: `(rows, (n, width))`, the constant first."""
        n = len(self.parts[0])
        for start in range(0, n, BLOCK):
            rows = slice(start, min(start + BLOCK, n))
            yield rows, _products([part[rows] for part in self.parts], self.factors)


def regression_design(variables: Sequence[Variable], columns: Sequence[np.ndarray]) -> Design:
    """A regression on `variables`, with as many interactions as the number of rows can bear.

    Raises DataError: too few rows even for sums of functions of one variable each.
    """
    n = len(columns[0])
    both = zip(variables, columns, strict=True)
    parts = [features(variable, values, _degree(n)) for variable, values in both]
    return Design(parts, _factors(variables, [part.shape[1] for part in parts], n))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each value over the number of rows, in (0, 1); equal values have equal ranks."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((counts.cumsum() - counts / 2) / len(values))[index]


def _degree(n: int) -> int:
    """Of the polynomials of a number that is conditioned on: it grows with the rows that can tell it."""
    return int(np.clip(round(n**0.25), 4, 12))


def _factors(variables: Sequence[Variable], widths: Sequence[int], n: int) -> int:
    most = min(MOST_COLUMNS, n // ROWS_A_COLUMN)
    for factors in range(len(widths), 0, -1):
        if _width(widths, factors) <= most:
            return factors
    needed = _width(widths, 1)
    names = ", ".join(variable.name for variable in variables)
    if needed > MOST_COLUMNS:
        raise DataError(
            f"conditioning on {names} takes {needed} columns, more than {MOST_COLUMNS}; join labels in the graph"
        )
    raise DataError(
        f"too few rows: conditioning on {names} takes at least {ROWS_A_COLUMN * needed:,}, there are {n:,}"
    )


def _width(widths: Sequence[int], factors: int) -> int:
    """How many columns the products of up to `factors` variables' functions are, the constant included."""
    chosen = (subset for k in range(factors + 1) for subset in combinations(widths, k))
    return sum(int(np.prod(subset, dtype=np.int64)) for subset in chosen)


def _products(single: Sequence[np.ndarray], factors: int) -> np.ndarray:
    n = len(single[0])
    columns = [np.ones((n, 1))]
    for k in range(1, factors + 1):
        for subset in combinations(single, k):
            product = subset[0]
            for part in subset[1:]:
                product = (product[:, :, None] * part[:, None, :]).reshape(n, -1)
            columns.append(product)
    return np.concatenate(columns, axis=1)
