"""Noise of the same shape: what any score in sample must be held against."""

import numpy as np
from scipy.special import ndtri

from causalcxr.debias.base import Eraser, Fitting

__all__ = ["Noise", "gaussian_of"]


class Noise(Eraser):
    """Gaussian noise with each feature's mean and standard deviation; the same for the same embedding."""

    ARRAYS = ("mean_", "scale_")

    def _fit(self, given: Fitting) -> None:
        self.mean_, self.scale_ = given.scaling()

    def _transform(self, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> np.ndarray:
        return (self.mean_ + self.scale_ * gaussian_of(z)).astype(z.dtype)


def gaussian_of(z: np.ndarray) -> np.ndarray:
    """Standard normal numbers `(B, D)` that follow from each embedding, and look like draws."""
    bits = np.ascontiguousarray(z, dtype=np.float64).view(np.uint64)
    column = np.arange(1, bits.shape[1] + 1, dtype=np.uint64)
    row = _mixed(bits + column).sum(axis=1, dtype=np.uint64)[:, None]
    uniform = (_mixed(row + column * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)) / 2.0**53
    return ndtri(uniform.clip(1e-12, 1 - 1e-12))


def _mixed(bits: np.ndarray) -> np.ndarray:
    """A hash of 64 bits: the finaliser of SplitMix64 (Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
