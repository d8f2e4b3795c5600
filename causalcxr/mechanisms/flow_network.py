"""The network that a conditional flow's velocity is."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.randomness import Draws

__all__ = ["TimeEmbedding", "Velocity", "drop_out"]

_FREQUENCIES, _HIGHEST = 16, 50.0  # of the features that describe the time


class TimeEmbedding(nn.Module):
    """Times `(B,)` and features `(B, F)` to their embedding `(B, width)`."""

    frequencies: Tensor

    def __init__(self, features: int, width: int):
        super().__init__()
        frequencies = torch.logspace(0, math.log10(_HIGHEST), _FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        first = nn.Linear(2 * _FREQUENCIES + features, width)
        self.network = nn.Sequential(first, nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor, features: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return self.network(torch.cat([angles.sin(), angles.cos(), features], dim=1))


class Velocity(nn.Module):
    """`v(x, t, features)` `(B, k)`: residual blocks whose norms are modulated by time and features.

    It starts as the zero velocity. With `draws`, hidden units are dropped out by them.
    Source of the modulation: Peebles and Xie 2023 (arXiv:2212.09748).
    """

    def __init__(self, dimensions: int, features: int, width: int, blocks: int, embedding: int, dropout: float):
        super().__init__()
        self.embed = TimeEmbedding(features, embedding)
        self.enter = nn.Linear(dimensions, width)
        self.blocks = nn.ModuleList(_Block(width, embedding, dropout) for _ in range(blocks))
        self.leave, self.shift = nn.Linear(width, dimensions), nn.Linear(embedding, dimensions)
        for layer in (self.leave, self.shift):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, features: Tensor, draws: Draws | None = None) -> Tensor:
        embedding, hidden = self.embed(t, features), self.enter(x)
        for block in self.blocks:
            hidden = block(hidden, embedding, draws)
        return (self.leave(F.silu(hidden)) + self.shift(embedding)).to(x.dtype)  # under autocast it would be half

    def weight(self, t: Tensor) -> Tensor:
        """What the squared error at time t `(B,)` counts: the same at every time."""
        return torch.ones_like(t)


class _Block(nn.Module):
    def __init__(self, width: int, embedding: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.modulation = nn.Linear(embedding, 3 * width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.modulation, self.outer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, embedding: Tensor, draws: Draws | None) -> Tensor:
        scale, shift, gain = self.modulation(embedding).chunk(3, dim=1)
        inner = F.layer_norm(hidden, hidden.shape[-1:]) * (1 + scale) + shift
        inner = F.silu(self.inner(inner))
        return hidden + (1 + gain) * self.outer(drop_out(inner, self.dropout, draws))


def drop_out(hidden: Tensor, share: float, draws: Draws | None) -> Tensor:
    """Units or channels `(B, width, ...)` with a share of them set to 0 by `draws`; as they are without."""
    if draws is None or not share:
        return hidden
    kept = share <= draws.uniform(hidden.shape[1], len(hidden)).T
    return hidden * kept.view(*kept.shape, *[1] * (hidden.ndim - 2)) / (1 - share)
