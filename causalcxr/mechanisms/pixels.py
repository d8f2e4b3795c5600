"""Pixels as a flow's coordinates: nothing is lost, and every pixel's standard deviation is known."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["Pixels"]

_SIZE = 0.5  # of the coordinates, root mean square: a flow's noise has 1
_LEAST = 0.1  # standard deviation of a coordinate that the velocity reckons with, in the flow's units


class Pixels(nn.Module):
    """`encode`: images `(B, C, H, W)` about their mean, in units of twice the spread of a typical pixel.

    `spread` `(C, H, W)`: standard deviations of the coordinates, none below 0.1. `lost`: nothing.
    """

    centre: Tensor
    scale: Tensor
    spread: Tensor
    lost: Tensor

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.coordinates = shape
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("spread", torch.ones(shape))
        self.register_buffer("lost", torch.zeros(shape), persistent=False)

    def encode(self, images: Tensor) -> Tensor:
        """Coordinates `(B, C, H, W)`."""
        return (images - self.centre) / self.scale

    def decode(self, coordinates: Tensor) -> Tensor:
        """Images `(B, C, H, W)`."""
        return coordinates.to(self.scale.dtype) * self.scale + self.centre

    @torch.no_grad()
    def fit(self, rows: Callable[[], Iterable[Tensor]]) -> None:
        """Fit to batches of images `(B, C, H, W)`, gone over once."""
        n, total, squares = 0, torch.zeros_like(self.centre), torch.zeros_like(self.centre)
        for images in rows():
            n, total = n + len(images), total + images.sum(dim=0)
            squares = squares + images.square().sum(dim=0)
        mean = total / n
        variance = (squares / n - mean.square()).clamp_min(0)
        self.centre.copy_(mean)
        self.scale.copy_((variance.mean().sqrt() / _SIZE).clamp_min(1e-6))
        self.spread.copy_((variance.sqrt() / self.scale).clamp_min(_LEAST))
