"""What a finding lays over the film: how much of every pixel it hides, and what is seen there instead.

    mean of the image = (1 - o) film + o cover        o = 1 - exp(-amount * thickness)

The film is what the latents and the other parents make, as if there were no finding; `amount` is the sum of the
finding's severities. With none nothing is laid over: removing a finding uncovers the film, and leaves alone what
it never covered. Four things keep the finding in the cover and out of the film, where it would stay:

- a hidden pixel has a price, which an effusion is worth, and a haze over everybody hardly is;
- the encoder sees little of what the severities alone predict to be hidden: the latents, which learn faster than
  anything that depends on a parent, would otherwise take an effusion for a high diaphragm;
- the film receives as little gradient from covered pixels (a stop-gradient), or it would grow brighter there;
- augmentation: in training some films without the finding are shown to the encoder under another film's cover, so
  that it learns to infer what is hidden from what is visible.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.mechanisms.hvae_network import (
    HEAD_GAIN,
    Baseline,
    HVAEConfig,
    bounded_scale,
    embedding_network,
    from_embedding,
    modulate,
    scale_logit,
)

__all__ = ["EXPECTED_PRICE", "Cover", "Overlay"]

_WIDTH = 24  # channels of the network that draws the edges
_INITIAL_DEPTH = -2.0  # before the softplus: thin, and not so thin that nothing would learn
_INITIAL_SHADE, _SHADE_GAIN = 0.1, 4.0  # before the sigmoid: a cover of 0.6, brighter than a lung
_INITIAL_SCALE = 0.1  # of the pixels that are covered, in [0, 1] units
_HIDING = 2  # power of what shows through: of a half-covered pixel the encoder sees a quarter
EXPECTED_PRICE = 1 / 6  # of a pixel that the parents alone predict to be covered, in that of one that is


@dataclass(frozen=True)
class Cover:
    """What is laid over a film.

    `amount` `(B, 1, 1, 1)`; `depth` `(B, 1, H, W)` and `shade` `(B, C, H, W)`: thickness and brightness before
    they are squeezed into their ranges; `embedding` `(B, E)`: of all that predicts them.
    """

    amount: Tensor
    depth: Tensor
    shade: Tensor
    embedding: Tensor

    @cached_property
    def opacity(self) -> Tensor:
        """Share of the film that is hidden, `(B, 1, H, W)` in [0, 1]: 0 where the amount is."""
        return -torch.expm1(-self.amount * F.softplus(self.depth))

    @property
    def area(self) -> Tensor:
        """Pixels that are hidden, `(B,)`."""
        return self.opacity.sum(dim=(1, 2, 3))

    def over(self, film: Tensor) -> Tensor:
        """The film `(B, C, H, W)` with the cover laid over it."""
        return torch.lerp(film, torch.sigmoid(_SHADE_GAIN * self.shade), self.opacity)

    @cached_property
    def visibility(self) -> Tensor:
        """Share of each pixel that the encoder sees, `(B, 1, H, W)`."""
        return (1 - self.opacity) ** _HIDING

    def mask(self, residual: Tensor) -> Tensor:
        """What the encoder sees of a residual `(B, C, H, W)`."""
        return residual * self.visibility

    def stop_gradient(self, film: Tensor) -> Tensor:
        """The same film, whose gradient is scaled by the visibility: covered pixels teach it little."""
        return torch.lerp(film.detach(), film, self.visibility.detach())

    def transplant(self, image: Tensor, film: Tensor) -> Tensor:
        """The film with another image in its place where the cover is, softly; no gradient reaches the cover."""
        return torch.lerp(film, image, (1 - self.visibility.square()).detach())


class Overlay(nn.Module):
    """What severities lay over a film: `expected` predicts it roughly, from parents alone; `forward` draws it.

    `features`: width of what `expected` predicts it from.
    """

    def __init__(self, config: HVAEConfig, channels: int, features: int):
        super().__init__()
        self.unfold, self.channels = config.stem, channels
        self.embed = embedding_network(features, config.embedding)
        self.depth = Baseline(config, 1, start=_INITIAL_DEPTH)
        self.shade = Baseline(config, channels, start=_INITIAL_SHADE)
        self.enter = nn.Conv2d(config.widths[0], _WIDTH, 1)
        self.inner = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.modulations = nn.ModuleList(from_embedding(config.embedding, 2 * _WIDTH) for _ in range(2))
        self.head = nn.Conv2d(_WIDTH, (1 + 2 * channels) * config.stem**2, 1)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.weight.mul_(HEAD_GAIN)
            self.head.bias.zero_()
            self.head.bias[-channels * config.stem**2 :] = scale_logit(_INITIAL_SCALE)

    def expected(self, features: Tensor, amount: Tensor) -> Cover:
        """From the features `(B, width)` and the amount `(B,)` of all that is laid over: the cover, smooth."""
        embedding = self.embed(features)
        return Cover(amount[:, None, None, None], self.depth(embedding), self.shade(embedding), embedding)

    def forward(self, expected: Cover, hidden: Tensor) -> tuple[Cover, Tensor]:
        """The cover with its edges, and the scale of its pixels `(B, C, H, W)`, from the decoder's feature map."""
        first, second = self.modulations
        hidden = modulate(self.enter(F.silu(hidden)), first, expected.embedding)
        hidden = modulate(self.inner(F.silu(hidden)), second, expected.embedding)
        pixels = self.head(F.silu(hidden))
        with torch.autocast(pixels.device.type, enabled=False):
            pixels = F.pixel_shuffle(pixels.to(torch.promote_types(pixels.dtype, torch.float32)), self.unfold)
            depth, shade, scale = pixels.split([1, self.channels, self.channels], dim=1)
            cover = replace(expected, depth=expected.depth + depth, shade=expected.shade + shade)
            return cover, bounded_scale(scale)
