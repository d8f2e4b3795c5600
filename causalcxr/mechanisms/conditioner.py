"""From the parents of an attribute to the parameters of its mechanism."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.values import Batch

__all__ = ["Conditioner"]


class Conditioner(nn.Module):
    """Parameters `(B, width)` as a function of the parents; `(1, width)` constants for a root.

    A linear map plus a small network that starts at zero, so that training starts from the linear model.
    """

    def __init__(self, parents: Sequence[Variable], width: int, hidden: int):
        super().__init__()
        self.parents = tuple(parents)
        self.bias = nn.Parameter(torch.zeros(width))
        if self.parents:
            self.encoder = ParentEncoder(self.parents)
            self.linear = nn.Linear(self.encoder.width, width, bias=False)
            last = nn.Linear(hidden, width, bias=False)
            self.network = nn.Sequential(nn.Linear(self.encoder.width, hidden), nn.SiLU(), last)
            nn.init.zeros_(self.linear.weight)
            nn.init.normal_(last.weight, std=1e-3)

    def calibrate(self, batch: Batch) -> None:
        """Standardise the continuous parents by the training split."""
        if self.parents:
            self.encoder.calibrate(batch)

    def forward(self, batch: Batch) -> Tensor:
        if not self.parents:
            return self.bias.unsqueeze(0)
        features = self.encoder(batch)
        return self.bias + self.linear(features) + self.network(features)
