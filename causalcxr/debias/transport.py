"""Every group's law of embeddings is carried to a common one, in closed form for Gaussians.

What a linear eraser leaves is mostly a difference of covariances. With mean m_g and covariance S_g of group g,

    erased = m + T_g (z - m_g)        T_g = S_g^-1/2 (S_g^1/2 S S_g^1/2)^1/2 S_g^-1/2

carries it to the barycentre (m, S), the law that all are nearest to (Alvarez-Esteban et al. 2016). Groups are all
combinations of labels; what numbers move, linearly, is taken away before. The rows' own attributes are needed.

A map that follows the noise of a covariance writes the group into the embedding. So a group differs from the
pooled covariance only in directions whose variance lies outside what as many rows of one law show by chance
(Marchenko and Pastur 1967).
"""

import numpy as np

from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.moments import measure_moments, shrunk

__all__ = ["Transport"]

_ITERATIONS = 20
_CONVERGED = 1e-6
LEAST = 10  # rows of a group


class Transport(Eraser):
    """Gaussian optimal transport of every group to their barycentre.

    Raises EmbeddingsError: a group of fewer than 10 rows.
    """

    ARRAYS = ("maps_", "means_", "mean_", "slopes_", "known_")
    NEEDS = ("attributes",)

    def _fit(self, given: Fitting) -> None:
        z, group, numbers = given.z, given.coding.groups(given.attributes), given.coding.numbers(given.attributes)
        known, member, counts = np.unique(group, return_inverse=True, return_counts=True)
        if counts.min() < LEAST:
            raise EmbeddingsError(
                f"the smallest group of {', '.join(given.coding.names)} together has {counts.min()} rows; "
                f"transport needs {LEAST} in each: erase fewer attributes at once, or with leace"
            )
        given.scaling()
        self.known_, self.slopes_ = known, _slopes(z, member, numbers)
        members, shares = [np.flatnonzero(member == g) for g in range(len(known))], counts / len(z)
        found = [
            measure_moments(z[rows] - (numbers[rows] @ self.slopes_).astype(z.dtype), np.zeros((len(rows), 0)))
            for rows in members
        ]
        self.means_ = np.stack([of.mean for of in found])
        self.mean_ = shares @ self.means_
        pooled = _root(shrunk(np.tensordot(shares, [of.covariance for of in found], 1), len(z)))
        self.maps_ = _maps(np.stack([_cleaned(of.covariance, pooled, of.n) for of in found]), shares)

    def _transform(
        self, z: np.ndarray, attributes: dict[str, np.ndarray] | None, pairs: object, rows: slice
    ) -> np.ndarray:
        assert attributes is not None
        group = self.coding_.groups(attributes)
        place = np.searchsorted(self.known_, group).clip(max=len(self.known_) - 1)
        if (self.known_[place] != group).any():
            n = int((self.known_[place] != group).sum())
            raise EmbeddingsError(
                f"{n} rows have a combination of {', '.join(self.coding_.names)} that the fit had not"
            )
        numbers, made = self.coding_.numbers(attributes), np.empty(z.shape)
        for g in np.unique(place):
            here = place == g
            left = z[here] - numbers[here] @ self.slopes_ - self.means_[g]
            made[here] = self.mean_ + left @ self.maps_[g]
        return made.astype(z.dtype)


def _slopes(z: np.ndarray, member: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """What one standard deviation of each number moves within groups, by least squares, `(M, D)`."""
    if not numbers.shape[1]:
        return np.zeros((0, z.shape[1]))
    sums = np.stack([np.bincount(member, column) for column in numbers.T], axis=1)
    centred = numbers - (sums / np.bincount(member)[:, None])[member]
    return np.linalg.lstsq(centred.T @ centred, centred.T @ z, rcond=None)[0]


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
    """The symmetric square root and its inverse."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values = np.sqrt(values.clip(min=1e-12 * values.max()))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
