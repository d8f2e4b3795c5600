"""Every group's law of embeddings is carried to a common one, in closed form for Gaussians.

What a linear eraser leaves is mostly a difference of covariances. With mean m_g and covariance S_g of group g,

    erased = m + T_g (z - m_g)        T_g = S_g^-1/2 (S_g^1/2 S S_g^1/2)^1/2 S_g^-1/2

carries it to the barycentre (m, S), the law that all are nearest to (Alvarez-Esteban et al. 2016). Groups are
all combinations of labels; what numbers move, linearly, is taken away before. The rows' own attributes are
needed.
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

    `prior`: how many rows, in units of features, the pooled covariance counts for in each group's.
    Raises EmbeddingsError: a group of fewer than 10 rows.
    """

    ARRAYS = ("maps_", "means_", "mean_", "slopes_", "known_")
    NEEDS = ("attributes",)

    def __init__(self, prior: float = 1.0):
        self.prior = prior

    def _fit(self, given: Fitting) -> None:
        z, group, numbers = given.z, given.coding.groups(given.attributes), given.coding.numbers(given.attributes)
        known, member, counts = np.unique(group, return_inverse=True, return_counts=True)
        if counts.min() < LEAST:
            raise EmbeddingsError(
                f"the smallest group of {', '.join(given.coding.names)} together has {counts.min()} rows; "
                f"transport needs {LEAST} in each: erase fewer attributes at once, or with leace"
            )
        self.known_, self.slopes_ = known, _slopes(z, member, numbers)
        shares = counts / len(z)
        means, covariances = [], []
        for g in range(len(known)):
            rows = np.flatnonzero(member == g)
            of = measure_moments(
                z[rows] - (numbers[rows] @ self.slopes_).astype(z.dtype), np.zeros((len(rows), 0))
            )
            means.append(of.mean)
            covariances.append(of.covariance)
        pooled = shrunk(np.tensordot(shares, covariances, 1), len(z))
        weight = self.prior * z.shape[1]
        covariances = [(n * S + weight * pooled) / (n + weight) for n, S in zip(counts, covariances, strict=True)]
        self.means_, self.mean_ = np.stack(means), shares @ np.stack(means)
        self.maps_ = _maps(covariances, shares)

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
        left = z - self.coding_.numbers(attributes) @ self.slopes_
        made = np.empty_like(left)
        for g in np.unique(place):
            here = place == g
            made[here] = self.mean_ + (left[here] - self.means_[g]) @ self.maps_[g]
        return made.astype(z.dtype)


def _slopes(z: np.ndarray, member: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """What one standard deviation of each number moves within groups, by least squares, `(M, D)`."""
    if not numbers.shape[1]:
        return np.zeros((0, z.shape[1]))
    counts = np.bincount(member)[:, None]
    sums = np.stack([np.bincount(member, column) for column in numbers.T], axis=1)
    centred = numbers - (sums / counts)[member]
    return np.linalg.lstsq(centred.T @ centred, centred.T @ z, rcond=None)[0]


def _maps(covariances: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
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
