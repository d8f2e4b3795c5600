"""Augmentation of a whole batch at once: every image is shifted, turned and scaled a little."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.randomness import Draws

__all__ = ["augment", "augment_alike"]

_SHIFT, _ANGLE, _SCALE = 0.06, math.radians(6), 0.06  # at strength 1: largest shift, turn and change of size


def augment(image: Tensor, strength: float, draws: Draws) -> Tensor:
    """Images `(B, C, H, W)`, float, each under a random similarity. No mirror: a heart lies on the left.

    Brightness is left alone, for exposure is a cue that an auditor must be able to see.
    """
    return augment_alike([image], strength, draws)[0] if strength else image


def augment_alike(images: list[Tensor], strength: float, draws: Draws) -> list[Tensor]:
    """The same random similarity of each row for every set of images `(B, C, H, W)`."""
    image = images[0]
    angle, scale, right, down = (2 * draws.uniform(4, len(image), dtype=image.dtype) - 1) * strength
    factor = torch.exp(_SCALE * scale)
    cos, sin = factor * torch.cos(_ANGLE * angle), factor * torch.sin(_ANGLE * angle)
    rows = [torch.stack([cos, -sin, 2 * _SHIFT * right], 1), torch.stack([sin, cos, 2 * _SHIFT * down], 1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return [F.grid_sample(one, grid, padding_mode="border", align_corners=False) for one in images]
