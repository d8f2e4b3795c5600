"""The velocity of a flow in pixels: a small U-Net around what would be right if every pixel were normal by itself.

    v(x, t) = v_normal(x, t) + s / sqrt(t^2 s^2 + (1 - t)^2) F(x, t)        s: standard deviation of a pixel

`v_normal` is the velocity of independent normal pixels, and the factor is the standard deviation of what it leaves
of the target. So F starts from there, and has a target of size 1 at every time and pixel (the preconditioning of
Karras et al. 2022, arXiv:2206.00364, for straight paths). An image of many pixels that are always black would
otherwise cost F most of its capacity.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from causalcxr.mechanisms.flow_network import TimeEmbedding, drop_out
from causalcxr.mechanisms.pixels import Pixels
from causalcxr.randomness import Draws

__all__ = ["UNetVelocity"]

_GROUP = 16  # channels to a group of the norms


class UNetVelocity(nn.Module):
    """`v(x, t, features)` `(B, C, H, W)`. `widths`: channels by level, each half as fine as the one before.

    `fold`: side of the pixel block that is folded into channels. `blocks`: residual blocks at the coarsest level,
    of which the others have one on either side. `space`: whose `spread` it reckons with.
    """

    def __init__(
        self,
        space: Pixels,
        features: int,
        widths: Sequence[int],
        blocks: int,
        embedding: int,
        dropout: float,
        fold: int,
        recompute: bool,
    ):
        super().__init__()
        shape = space.coordinates
        channels, side = shape[0] * fold**2, shape[-1] // fold
        self.fold, self.dropout, self.recompute = fold, dropout, recompute
        self._space = (space,)  # in a tuple, for it is a part of the mechanism and not of the network
        self.embed = TimeEmbedding(features, embedding)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.places = nn.ParameterList(
            torch.zeros(width, side // 2**i, side // 2**i) for i, width in enumerate(widths)
        )
        finer, coarser = widths[:-1], widths[1:]
        self.before = nn.ModuleList(_Block(width, embedding) for width in finer)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(finer, coarser, strict=True))
        self.middle = nn.ModuleList(_Block(widths[-1], embedding) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(finer, coarser, strict=True))
        self.merge = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in finer)
        self.after = nn.ModuleList(_Block(width, embedding) for width in finer)
        self.leave = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, features: Tensor, draws: Draws | None = None) -> Tensor:
        if not len(x):  # torch leaves an empty batch unfolded
            return x
        s, at = self._spread, t.view(-1, 1, 1, 1)
        variance = (at * s).square() + (1 - at).square()
        normal = (at * s.square() - (1 - at)) / variance * x
        size = ((at * self._typical).square() + (1 - at).square()).sqrt()
        return normal + s / variance.sqrt() * self._network(x / size, t, features, draws).to(x.dtype)

    def weight(self, t: Tensor) -> Tensor:
        """What the squared error at time t `(B,)` counts: so that F's counts the same at every time."""
        return ((t * self._typical).square() + (1 - t).square()) / self._typical.square()

    @property
    def _typical(self) -> Tensor:
        """Of all pixels, root mean square."""
        return self._spread.square().mean().sqrt()

    @property
    def _spread(self) -> Tensor:
        return self._space[0].spread

    def _network(self, x: Tensor, t: Tensor, features: Tensor, draws: Draws | None) -> Tensor:
        embedding = self.embed(t, features)
        folded = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        hidden, skipped = self.enter(folded) + self.places[0], []
        for i, (block, down) in enumerate(zip(self.before, self.down, strict=True)):
            hidden = self._run(block, hidden, embedding)
            skipped.append(hidden)
            hidden = down(hidden) + self.places[i + 1]
        for block in self.middle:
            hidden = self._run(block, hidden, embedding)
        hidden = drop_out(hidden, self.dropout, draws)
        for block, up, merge in reversed(list(zip(self.after, self.up, self.merge, strict=True))):
            hidden = F.pixel_shuffle(up(hidden), 2).contiguous(memory_format=torch.channels_last)
            hidden = self._run(block, merge(torch.cat([hidden, skipped.pop()], dim=1)), embedding)
        return F.pixel_shuffle(self.leave(F.silu(hidden)), self.fold)

    def _run(self, block: nn.Module, hidden: Tensor, embedding: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, hidden, embedding, use_reentrant=False)
        return block(hidden, embedding)


class _Block(nn.Module):
    """A residual block whose norm is modulated by time and parents. It starts as the identity."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.inner, self.outer = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        groups = next(n for n in range(max(1, width // _GROUP), 0, -1) if width % n == 0)
        self.norm = nn.GroupNorm(groups, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        for layer in (self.outer, self.modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm(self.inner(F.silu(hidden))) * (1 + scale) + shift
        return hidden + self.outer(F.silu(inner))
