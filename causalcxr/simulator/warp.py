"""Where each pixel lies in the body: the field of view and a smooth one-to-one warp of each subject."""

from collections.abc import Mapping

import torch
from torch import Tensor

from causalcxr.simulator.equations import DEFAULT, Knobs

__all__ = ["body_coordinates", "pixel_grid"]

MODES = ((1.0, 1.0), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0))  # half waves across and down
AMPLITUDE = 0.010
LIMIT = 2.5  # standard deviations; bounds the warp's slopes, so that the Jacobian stays above 0


def pixel_grid(size: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Pixel centres along one axis, `(size,)`, from -1 to 1."""
    return (2.0 * torch.arange(size, dtype=dtype, device=device) + 1.0) / size - 1.0


def body_coordinates(
    u: Mapping[str, Tensor], x: Tensor, y: Tensor, knobs: Knobs = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Body coordinates `(B, P)` of the image points `x, y`, each `(P,)`, in half image widths.

    Zoom, rotation and shift of the field of view, then a sum of products of sines. Each coordinate's displacement
    has slopes below 1/2 in sum, so the map is a diffeomorphism (Jacobian determinant above 0) for every noise.
    """
    position = (knobs.variation * u["position"]).clamp(-LIMIT, LIMIT).to(x.dtype)
    zoom, angle = 1.0 + 0.055 * position[:, 0:1], 0.03 * position[:, 1:2]
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    across = cosine * x - sine * y + 0.03 * position[:, 2:3]
    down = sine * x + cosine * y + 0.035 * position[:, 3:4]
    weights = (knobs.variation * u["warp"]).clamp(-LIMIT, LIMIT).to(x.dtype) * AMPLITUDE
    shift_across, shift_down = torch.zeros_like(across), torch.zeros_like(down)
    for i, (waves_x, waves_y) in enumerate(MODES):
        phase = weights[:, 8 + 2 * i : 10 + 2 * i] * (3.0 / AMPLITUDE)
        wave = torch.sin(waves_x * 1.57 * x + phase[:, 0:1]) * torch.sin(waves_y * 1.57 * y + phase[:, 1:2])
        shift_across = shift_across + weights[:, 2 * i : 2 * i + 1] * wave
        shift_down = shift_down + weights[:, 2 * i + 1 : 2 * i + 2] * wave
    return across + shift_across, down + shift_down
