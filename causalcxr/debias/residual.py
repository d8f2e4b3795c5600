"""A small change of every embedding, learned against an adversary, that goes no farther than a budget.

    erased = z + r(z)

r takes away what an adversary in closed form reads, of any shape, where LEACE takes away what is linear; the mean
squared change is held to the budget. Embeddings stay near to what they were, so what is not named stays too. What
is left is more than independent codes leave.
"""

import numpy as np
import torch
from torch import Tensor, nn

from causalcxr.debias.adversary import Adversary
from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.linear import LEACE
from causalcxr.debias.networks import Skipped, finite_weights, state_arrays, take_state, train
from causalcxr.randomness import seeded

__all__ = ["Residual"]

FEATURES = 512  # of the adversary
OVERSPENT = 5.0  # weight of the squared share by which the budget is exceeded


class Residual(Eraser):
    """Adds a residual network's answer, the least readable that the budget allows.

    `budget`: mean squared change, as a share of the embeddings' variance; None: LEACE's. `jitter`: noise on the
    network's inputs in training, in standard deviations, for it not to learn single rows.
    """

    ARRAYS = ("mean_", "scale_")

    def __init__(
        self,
        budget: float | None = None,
        jitter: float = 0.3,
        steps: int = 1000,
        hidden: int = 256,
        batch: int = 1400,
        seed: int = 0,
    ):
        self.budget, self.jitter, self.steps = budget, jitter, steps
        self.hidden, self.batch, self.seed = hidden, batch, seed

    def _fit(self, given: Fitting) -> None:
        self.mean_, spread = given.scaling()
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self._build()
        z = self._scaled(given.z).float()
        share = torch.from_numpy(spread**2 / max((spread**2).sum(), 1e-300)).float()
        budget = _edit_of_leace(given) if self.budget is None else self.budget
        adversary = Adversary(given, FEATURES, self.seed)
        noise = torch.Generator().manual_seed(self.seed)

        def loss(rows: Tensor) -> Tensor:
            moved = self.network_(z[rows] + self.jitter * torch.randn(z[rows].shape, generator=noise))
            over = (moved.square() @ share).mean() / budget - 1
            return adversary.explained(z[rows] + moved, rows) + OVERSPENT * over.clamp_min(0).square()

        train(list(self.network_.parameters()), loss, len(z), self.steps, self.batch, self.seed)
        finite_weights(self, self.network_)

    def _build(self) -> None:
        """Begins with no change at all."""
        with seeded(self.seed):
            self.network_ = Skipped(self.n_features_in_, self.hidden, self.n_features_in_)
        for last in (self.network_.linear, self.network_.network[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def _scaled(self, z: np.ndarray) -> Tensor:
        return torch.from_numpy((z - self.mean_) / self.scale_)

    @torch.no_grad()
    def _transform(self, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> np.ndarray:
        return (z + self.network_(self._scaled(z)).numpy() * self.scale_).astype(z.dtype)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | state_arrays(self.network_, "network")

    def take_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        super().take_arrays(arrays)
        self._build()
        take_state(self.network_.double(), arrays, "network")


def _edit_of_leace(given: Fitting) -> float:
    """Mean squared change, as a share of the variance."""
    moved = LEACE().fit(given.z, given.attributes).transform(given.z) - given.z
    return float((moved**2).sum() / ((given.z - given.z.mean(axis=0)) ** 2).sum())
