"""Erasers that know every patient's counterfactual embeddings `(N, G, D)`: one for each combination of values.

`counterfactual` is their mean, weighted alike for everyone. With exact counterfactuals it is a function of the
patient's noise and of the other causes alone, so that no probe of any kind can tell the attribute beyond what
they tell. `span` takes away the directions in which counterfactuals of one patient differ; a network's embeddings
differ in more than directions.
"""

import numpy as np

from causalcxr.debias.base import Eraser, Fitting, pairs_of
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.moments import blocks

__all__ = ["Counterfactual", "Span"]


class Counterfactual(Eraser):
    """The mean of a patient's embeddings over all values of the attributes; there is nothing to learn."""

    NEEDS = ("pairs",)

    def _fit(self, given: Fitting) -> None:
        pairs_of(given)

    def _transform(self, z: np.ndarray, attributes: object, pairs: np.ndarray | None, rows: slice) -> np.ndarray:
        assert pairs is not None
        return pairs.mean(axis=1, dtype=np.float64).astype(z.dtype)


class Span(Eraser):
    """Projects on what is orthogonal to the span of a patient's differences between counterfactuals.

    `variance`: the share of the differences' variance that is taken away with the span.
    """

    ARRAYS = ("mean_", "directions_")

    def __init__(self, variance: float = 0.99):
        self.variance = variance

    def _fit(self, given: Fitting) -> None:
        pairs, d = pairs_of(given), given.z.shape[1]
        square = np.zeros((d, d))
        for _, block in blocks(pairs):
            apart = (block - block.mean(axis=1, keepdims=True)).reshape(-1, d).astype(np.float64)
            square += apart.T @ apart
        values, vectors = np.linalg.eigh(square)
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        if values[0] <= 0:
            raise EmbeddingsError("the counterfactuals do not differ: there is no span to take away")
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), self.variance)) + 1
        self.mean_, self.directions_ = given.scaling()[0], vectors[:, :kept].copy()

    def _transform(self, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> np.ndarray:
        mean, directions = self.mean_.astype(z.dtype), self.directions_.astype(z.dtype)
        return z - ((z - mean) @ directions) @ directions.T
