"""Erasers that are affine maps in closed form: afterwards no linear probe can tell the attributes.

With covariance S of the embeddings, cross-covariance C of embeddings and attributes, and K that of embeddings
and labels to keep,

    erased = z - C M^+ (C' S^-1 - B (K' S^-1 K)^+ K' S^-1) (z - mean)
    B = C' S^-1 K        M = C' S^-1 C - B (K' S^-1 K)^+ B'

is the smallest change (in the metric of S) after which the covariance with the attributes is 0 and that with
the labels is as before. Without labels to keep it is LEACE (Belrose et al. 2023), with them SPLINCE (Holstege
et al. 2025). Every direction that correlates at all is taken out: a threshold would leave a rare group where it
is.
"""

import numpy as np

from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.moments import inverse_times, measure_moments, shrunk

__all__ = ["LEACE", "SPLINCE"]

_ROUNDING = 1e-10  # a squared canonical correlation below it is none
_ENTANGLED = 1e-3  # of an attribute's squared correlation that is left beside the labels to keep


class LEACE(Eraser):
    """Least-squares concept erasure: the smallest affine change that no linear probe sees through.

    `shrinkage`: of the correlations, 0 to 1; None: none with ten rows a feature or more, else as much as they
    ask for. It bears on how small the change is, never on what is erased.
    """

    ARRAYS = ("mean_", "left_", "right_")

    def __init__(self, shrinkage: float | None = None):
        self.shrinkage = shrinkage

    def _fit(self, given: Fitting) -> None:
        self.mean_, self.left_, self.right_ = _solve(given, False, self.shrinkage)

    def _write(self, out: np.ndarray, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> None:
        left, right, offset = (
            part.astype(z.dtype) for part in (self.left_, self.right_, self.mean_ @ self.right_)
        )
        np.matmul(z @ right - offset, left.T, out=out)
        np.subtract(z, out, out=out)


class SPLINCE(LEACE):
    """LEACE that keeps the covariance with the labels to keep; without such labels it is LEACE."""

    def _fit(self, given: Fitting) -> None:
        self.mean_, self.left_, self.right_ = _solve(given, True, self.shrinkage)


def _solve(given: Fitting, keeping: bool, shrinkage: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean `(D,)`, left and right `(D, R)`: erased = z - left right' (z - mean)."""
    codes, kept = given.codes, np.zeros((len(given.z), 0))
    if keeping and given.keep_coding is not None and given.keep is not None:
        kept = given.keep_coding.encode(given.keep)
    found = measure_moments(given.z, np.hstack([codes, kept]))
    k = codes.shape[1]
    cross = found.cross[:, :k] @ _whitening(found.codes[:k, :k])
    to_keep = found.cross[:, k:] @ _whitening(found.codes[k:, k:])
    solved = inverse_times(shrunk(found.covariance, found.n, shrinkage), np.hstack([cross, to_keep]))
    of_cross, of_keep = solved[:, : cross.shape[1]], solved[:, cross.shape[1] :]
    alone = cross.T @ of_cross
    between = cross.T @ of_keep
    middle = np.linalg.pinv(to_keep.T @ of_keep, rcond=_ROUNDING, hermitian=True) @ between.T
    right = of_cross - of_keep @ middle
    left_over = alone - between @ middle
    values, vectors = np.linalg.eigh((alone + alone.T) / 2)
    used = vectors[:, values > _ROUNDING]
    inside = used.T @ left_over @ used
    if used.shape[1] and np.linalg.eigvalsh(inside).min() < _ENTANGLED * values[values > _ROUNDING].min():
        raise EmbeddingsError(
            "an attribute to erase and a label to keep lie in the same direction of the embeddings; erase without "
            "keeping it (leace), or keep another label"
        )
    return found.mean, cross @ used @ np.linalg.inv(inside), right @ used


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """`(K, R)`: makes codes uncorrelated with variance 1, and leaves out what others tell (one-hot columns)."""
    values, vectors = np.linalg.eigh(covariance)
    real = values > 1e-12 * max(values.max(initial=0.0), 1e-300)
    return vectors[:, real] / np.sqrt(values[real])
