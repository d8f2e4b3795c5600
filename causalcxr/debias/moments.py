"""Mean and covariances of embeddings and attributes in one pass over blocks of rows, also from disk."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from causalcxr.debias.errors import EmbeddingsError

__all__ = ["Moments", "blocks", "finite", "inverse_times", "measure_moments", "shrunk"]

ROWS_AT_ONCE = 4096
ENOUGH_ROWS = 10  # a feature
_REDUNDANT = 1e-9  # of a feature's variance that the others do not tell


@dataclass(frozen=True)
class Moments:
    """Of embeddings `z` and codes `a`: mean `(D,)`, covariance `(D, D)`, `cross` `(D, K)`, codes' `(K, K)`."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray
    cross: np.ndarray
    codes: np.ndarray


def blocks(embeddings: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows in blocks, each read once."""
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, len(embeddings)))
        yield rows, np.asarray(embeddings[rows])


def finite(block: np.ndarray, first: int = 0) -> np.ndarray:
    """The block itself. Raises EmbeddingsError: NaN or infinity in it."""
    if not np.isfinite(block.sum()):  # or it is too large: then every number is looked at
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise EmbeddingsError(
                f"embeddings hold NaN or infinity in row {first + bad[0]} and {len(bad) - 1} rows near it; leave "
                "these out"
            )
    return block


def measure_moments(embeddings: np.ndarray, codes: np.ndarray) -> Moments:
    """Products of a block in its own precision, sums over blocks in float64; about the mean of the first block.

    `embeddings` `(N, D)`, `codes` `(N, K)`. The product of a block with itself is symmetric, and costs half.
    """
    n, (d, k) = len(embeddings), (embeddings.shape[1], codes.shape[1])
    centre = np.asarray(embeddings[:ROWS_AT_ONCE]).mean(axis=0)
    centre_codes = codes.mean(axis=0)
    total, square, cross = np.zeros(d), np.zeros((d, d)), np.zeros((d, k))
    codes = codes - centre_codes
    with np.errstate(over="ignore", invalid="ignore"):  # seen below
        for rows, block in blocks(embeddings):
            moved = finite(block, rows.start) - centre
            total += np.ones(len(moved), dtype=moved.dtype) @ moved
            square += moved.T @ moved
            cross += moved.T @ codes[rows].astype(moved.dtype)
    if not np.isfinite(square).all() or 0 < square.diagonal().max() < 1e-30 * n:
        raise EmbeddingsError(
            "embeddings are too large or too small for their precision; scale them, or give float64"
        )
    shift = total / n
    covariance = square / n - np.outer(shift, shift)
    return Moments(n, centre.astype(np.float64) + shift, covariance, cross / n, codes.T @ codes / n)


def shrunk(covariance: np.ndarray, n: int, shrinkage: float | None = None) -> np.ndarray:
    """The covariance with its correlations shrunk towards 0, so that its inverse can be taken.

    `shrinkage`: by how much, 0 to 1; None: not at all with ten rows a feature or more, otherwise by the oracle
    approximation of Chen et al. (2010). Features that are constant get a variance of 1.
    """
    scale = _scale(covariance)
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    if shrinkage is None:
        shrinkage = 0.0 if n >= ENOUGH_ROWS * len(correlation) else _amount(correlation, n)
    correlation *= 1 - shrinkage
    np.fill_diagonal(correlation, 1.0)
    return correlation * np.outer(scale, scale)


def _scale(covariance: np.ndarray) -> np.ndarray:
    variance = covariance.diagonal().clip(min=0)
    return np.sqrt(np.where(variance > 1e-12 * variance.max(), variance, 1.0))


def _amount(correlation: np.ndarray, n: int) -> float:
    d, square = len(correlation), float((correlation**2).sum())
    above = (1 - 2 / d) * square + d**2
    below = (n + 1 - 2 / d) * (square - d)
    return 1.0 if below <= 0 else min(1.0, above / below)


def inverse_times(covariance: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`covariance^-1 right`; the pseudo-inverse where features are redundant."""
    scale = _scale(covariance)
    correlation, scaled = covariance / np.outer(scale, scale), right / scale[:, None]
    try:
        factor = cho_factor(correlation, lower=True)
        if factor[0].diagonal().min() ** 2 > _REDUNDANT:
            return cho_solve(factor, scaled) / scale[:, None]
    except LinAlgError:
        pass
    return np.linalg.pinv(correlation, rcond=_REDUNDANT, hermitian=True) @ scaled / scale[:, None]
