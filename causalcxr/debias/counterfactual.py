"""Erasers that know every patient's counterfactual embeddings `(N, G, D)`: one for each combination of values.

`counterfactual` is their mean, weighted alike for everyone. With exact counterfactuals it is a function of the
patient's noise and of the other causes alone, so that no probe of any kind can tell the attribute beyond what
they tell. `distilled` learns that mean from the embedding, for rows without images at hand. `span` takes away
the directions in which counterfactuals of one patient differ; a network's embeddings differ in more than
directions.
"""

import numpy as np
import torch

from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.moments import blocks
from causalcxr.debias.networks import hsic, mlp, state_arrays, take_state, train

__all__ = ["Counterfactual", "Distilled", "Span"]


class Counterfactual(Eraser):
    """The mean of a patient's embeddings over all values of the attributes; there is nothing to learn."""

    NEEDS = ("pairs",)

    def _fit(self, given: Fitting) -> None:
        _pairs_of(given)

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
        pairs, d = _pairs_of(given), given.z.shape[1]
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


class Distilled(Eraser):
    """A network that has learned the mean over counterfactuals from the embedding.

    `known`: whether it is given the row's attributes, which `transform` then needs. `strength`: of a penalty on
    what the network's answer tells of the attributes (HSIC).
    """

    ARRAYS = ("mean_", "scale_")

    def __init__(
        self,
        known: bool = True,
        strength: float = 100.0,
        steps: int = 2000,
        hidden: int = 256,
        batch: int = 256,
        seed: int = 0,
    ):
        self.known, self.strength = known, strength
        self.steps, self.hidden, self.batch, self.seed = steps, hidden, batch, seed

    @property
    def NEEDS(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("attributes",) if self.known else ()

    def _fit(self, given: Fitting) -> None:
        self.mean_, spread = given.scaling()
        self.scale_ = spread.mean(keepdims=True)
        z = self._scaled(given.z).float()
        target = self._scaled(_pairs_of(given).mean(axis=1, dtype=np.float64)).float()
        codes = torch.from_numpy(given.codes).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network_ = self._network(codes.shape[1])

        def loss(rows: torch.Tensor) -> torch.Tensor:
            made = z[rows] + self.network_(self._input(z[rows], codes[rows]))
            return (made - target[rows]).square().mean() + self.strength * hsic(made, codes[rows])

        train(list(self.network_.parameters()), loss, len(z), self.steps, self.batch, self.seed)
        self.network_.double()

    @torch.no_grad()
    def _transform(
        self, z: np.ndarray, attributes: dict[str, np.ndarray] | None, pairs: object, rows: slice
    ) -> np.ndarray:
        scaled = self._scaled(z)
        codes = torch.zeros(len(z), 0, dtype=torch.float64)
        if self.known and attributes is not None:
            codes = torch.from_numpy(self.coding_.encode(attributes))
        made = scaled + self.network_(self._input(scaled, codes))
        return (made.numpy() * self.scale_ + self.mean_).astype(z.dtype)

    def _network(self, codes: int) -> torch.nn.Module:
        return mlp(self.n_features_in_ + codes * self.known, self.hidden, self.n_features_in_)

    def _input(self, z: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, codes], dim=1) if self.known else z

    def _scaled(self, z: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((z - self.mean_) / self.scale_)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | state_arrays(self.network_, "network")

    def take_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        super().take_arrays(arrays)
        codes = sum(max(1, len(a.labels)) for a in self.coding_.attributes)
        self.network_ = take_state(self._network(codes).double(), arrays, "network")


def _pairs_of(given: Fitting) -> np.ndarray:
    if given.pairs is None:
        raise EmbeddingsError(
            "this eraser is fitted to pairs, embeddings of the rows' counterfactuals; none is given"
        )
    return given.pairs
