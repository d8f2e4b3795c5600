"""Principal components of images, found in a few passes over batches of them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from causalcxr.support.errors import ConfigError

__all__ = ["PrincipalComponents"]

_PASSES = 6  # of subspace iteration: the share of the variance found has settled by then
_LEAST = 0.01  # spread of a direction in which images hardly vary, in that of the mean: units must not vanish
_SEED = 0  # of the subspace that the iteration starts from


class PrincipalComponents(nn.Module):
    """The directions `(k, D)` in which flattened images vary most, none until `fit`.

    `encode` gives coordinates whose standard deviations are those of the components to the power `1 - whiten`, in
    units of their mean: with 0 they keep their proportions, with 1 all are 1. `lost` `(C, H, W)`: standard
    deviation of what the components leave out.
    """

    centre: Tensor
    directions: Tensor
    scale: Tensor
    lost: Tensor

    def __init__(self, k: int, shape: torch.Size, whiten: float):
        super().__init__()
        self.shape, self.whiten, self.coordinates = shape, whiten, torch.Size((k,))
        self.register_buffer("centre", torch.zeros(shape.numel()))
        self.register_buffer("directions", torch.eye(k, shape.numel()))
        self.register_buffer("scale", torch.ones(k))
        self.register_buffer("lost", torch.zeros(shape))

    def encode(self, images: Tensor) -> Tensor:
        """Coordinates `(B, k)` of images `(B, C, H, W)`."""
        with torch.autocast(images.device.type, enabled=False):
            return (images.flatten(1) - self.centre) @ self.directions.T / self.scale

    def decode(self, coordinates: Tensor) -> Tensor:
        """Images `(B, C, H, W)` of coordinates `(B, k)`."""
        with torch.autocast(coordinates.device.type, enabled=False):
            flat = (coordinates.to(self.scale.dtype) * self.scale) @ self.directions + self.centre
            return flat.view(-1, *self.shape)

    @torch.no_grad()
    def fit(self, rows: Callable[[], Iterable[Tensor]]) -> None:
        """Fit to batches of images `(B, C, H, W)`, gone over several times (Halko, Martinsson and Tropp 2011)."""
        n, total, squares = 0, torch.zeros_like(self.centre), torch.zeros_like(self.centre)
        for images in rows():
            flat = images.flatten(1)
            n, total, squares = n + len(flat), total + flat.sum(dim=0), squares + flat.square().sum(dim=0)
        centre, k = total / n, len(self.scale)
        if n <= k:
            raise ConfigError(f"model.flow.components is {k}; expected fewer than the films to train on, {n}")
        generator = torch.Generator().manual_seed(_SEED)
        start = torch.randn(len(centre), k, generator=generator).to(centre)
        basis = torch.linalg.qr(start).Q
        for _ in range(_PASSES):
            product = torch.zeros_like(basis)
            for images in rows():
                flat = images.flatten(1) - centre
                product += flat.T @ (flat @ basis)
            basis = torch.linalg.qr(product).Q
        inner = torch.zeros(k, k, device=centre.device, dtype=torch.float64)
        for images in rows():
            coordinates = ((images.flatten(1) - centre) @ basis).double()
            inner += coordinates.T @ coordinates
        variances, rotation = torch.linalg.eigh(inner / n)
        directions = (basis.double() @ rotation.flip(1)).T
        spread = variances.flip(0).clamp_min(0).sqrt()
        spread = spread.clamp_min(max(1e-6, _LEAST * float(spread.mean())))
        self.centre.copy_(centre)
        self.directions.copy_(directions)
        self.scale.copy_(spread**self.whiten * spread.mean() ** (1 - self.whiten))
        left = squares / n - centre.square() - (spread.square()[:, None] * directions.square()).sum(dim=0)
        self.lost.copy_(left.clamp_min(0).sqrt().view(self.shape))
