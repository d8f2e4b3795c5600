"""Every group's covariance is carried to a common one, after LEACE has made their means equal.

What LEACE leaves is mostly a difference of covariances. Of normal laws with covariance S_g in group g,

    erased = m + T_g (z - m)        T_g = S_g^-1/2 (S_g^1/2 S S_g^1/2)^1/2 S_g^-1/2

carries each to the barycentre (m, S), the law that all are nearest to (Alvarez-Esteban et al. 2016). Groups are
all combinations of labels. The rows' own attributes are needed.

A map that follows the noise of an estimate writes the group into the embedding. So no mean is moved by the group,
and a group differs from the pooled covariance only in directions whose variance lies outside what as many rows of
one law show by chance (Marchenko and Pastur 1967). A value that many rows share (0 after a ReLU) would come to
lie elsewhere in each group, which trees read: such embeddings are refused.
"""

from typing import Any

import numpy as np

from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.linear import LEACE
from causalcxr.debias.moments import measure_moments, shrunk

__all__ = ["Transport"]

LEAST = 10  # rows of a group
SHARED = 0.05  # of the rows: a value that more have is no part of a normal law
_ITERATIONS = 20
_CONVERGED = 1e-6
_ABSENT = 1e-9  # of the largest variance: a direction that LEACE has taken out


class Transport(Eraser):
    """LEACE, then Gaussian optimal transport of every group's covariance to their barycentre.

    A combination of labels that the fit had not, or in fewer than 10 rows, is moved as LEACE moves it.
    Raises EmbeddingsError: no two groups of 10 rows, or a value that more than 5 % of the rows share in a feature.
    """

    ARRAYS = ("maps_", "known_", "mean_", "left_", "right_")
    NEEDS = ("attributes",)

    def _fit(self, given: Fitting) -> None:
        z, group = given.z, given.coding.groups(given.attributes)
        linear = LEACE().fit(z, given.attributes)
        assert isinstance(linear, LEACE)
        self.mean_, self.left_, self.right_ = linear.mean_, linear.left_, linear.right_
        known, counts = np.unique(group, return_counts=True)
        self.known_ = known[counts >= LEAST]
        if len(self.known_) < 2:
            raise EmbeddingsError(
                f"the groups of {', '.join(given.coding.names)} have {counts.min()} to {counts.max()} rows; "
                f"transport needs two of {LEAST} or more: erase fewer attributes at once, or with leace"
            )
        _refuse_shared(z)
        z = linear.transform(z)
        found = [measure_moments(z[group == g], np.zeros((int((group == g).sum()), 0))) for g in self.known_]
        shares = np.array([of.n for of in found]) / sum(of.n for of in found)
        pooled = _root(shrunk(np.tensordot(shares, [of.covariance for of in found], 1), len(z)))
        self.maps_ = _maps(np.stack([_cleaned(of.covariance, pooled, of.n) for of in found]), shares)

    def _transform(
        self, z: np.ndarray, attributes: dict[str, np.ndarray] | None, pairs: object, rows: slice
    ) -> np.ndarray:
        assert attributes is not None
        group = self.coding_.groups(attributes)
        made: np.ndarray = z - ((z - self.mean_) @ self.right_) @ self.left_.T
        for g, moved in zip(self.known_, self.maps_, strict=True):
            here = group == g
            made[here] = self.mean_ + (made[here] - self.mean_) @ moved
        return made.astype(z.dtype)


def _refuse_shared(z: np.ndarray) -> None:
    for i, column in enumerate(z.T):
        values, counts = np.unique(column, return_counts=True)
        if len(values) > 1 and counts.max() > max(LEAST, SHARED * len(z)):
            raise EmbeddingsError(
                f"feature {i + 1} is {values[counts.argmax()]:g} in {counts.max() / len(z):.0%} of the rows; "
                "moved by group, such a value would tell the group: erase with leace or independence"
            )


def _cleaned(covariance: np.ndarray, pooled: tuple[np.ndarray, np.ndarray], n: int) -> np.ndarray:
    """A group's covariance, where it differs from the pooled one by more than chance; else the pooled one.

    `pooled`: its root and inverse root. The law of the largest variance is as wide as Johnstone (2001) says.
    """
    root, inverse = pooled
    values, vectors = np.linalg.eigh(inverse @ covariance @ inverse)
    d = len(values)
    width = (n**0.5 + d**0.5) * (n**-0.5 + d**-0.5) ** (1 / 3) / n
    low, high = max(0.0, 1 - (d / n) ** 0.5) ** 2 - 2 * width, (1 + (d / n) ** 0.5) ** 2 + 2 * width
    values = np.where((values < low) | (values > high), values, 1.0)
    half = root @ vectors
    return (half * values) @ half.T


def _maps(covariances: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """`(G, D, D)`, symmetric; the barycentre's covariance is the fixed point that all are carried to."""
    roots = [_root(S) for S in covariances]
    middle = np.tensordot(shares, covariances, 1)
    for _ in range(_ITERATIONS):
        root, inverse = _root(middle)
        mean = np.tensordot(shares, [_root(root @ S @ root)[0] for S in covariances], 1)
        after = inverse @ mean @ mean @ inverse
        change = np.abs(after - middle).max() / np.abs(middle).max()
        middle = (after + after.T) / 2
        if change < _CONVERGED:
            break
    return np.stack([inverse @ _root(root @ middle @ root)[0] @ inverse for root, inverse in roots])


def _root(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric square root and its inverse; of directions without variance both are 0."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    there = values > _ABSENT * values.max(initial=0.0)
    roots: Any = np.sqrt(np.where(there, values, 0.0))
    inverse = np.where(there, 1 / np.where(there, roots, 1.0), 0.0)
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T
