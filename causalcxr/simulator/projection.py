"""From path lengths to the image: Beer-Lambert with scatter, logarithm, noise, and one fixed film curve."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from causalcxr.simulator.anatomy import geometry
from causalcxr.simulator.channels import pixel_noise
from causalcxr.simulator.equations import DEFAULT, Knobs, attributes, intervened
from causalcxr.simulator.planted import marker_mask, total, zoom
from causalcxr.simulator.sites import SITE, law_of_site
from causalcxr.simulator.tissue import paths
from causalcxr.simulator.warp import body_coordinates, pixel_grid
from causalcxr.support.errors import ConfigError

__all__ = ["counterfactual", "render"]

SOFT_ATTENUATION = 3.3  # per half image width: 0.165 per cm
BONE_ATTENUATION = 6.0  # beyond the soft tissue that bone takes the place of
SCATTER, SCATTER_ATTENUATION = 0.20, 0.60
LEVEL, CONTRAST = 2.08, 1.70  # middle and slope of the film curve, over log exposure
NOISE = 0.02  # standard deviation in log exposure
PIXELS_AT_ONCE = 1 << 18  # bounds memory and keeps a pass within the processor's cache


def render(u: Mapping[str, Tensor], p: Mapping[str, Tensor], size: int = 64, knobs: Knobs = DEFAULT) -> Tensor:
    """Images `(B, 1, size, size)` in [0, 1] of subjects with noise `u` and attributes `p`.

    Computed in the dtype of `p["age"]` (float32 from `attributes`) and differentiable with respect to it.
    Raises ConfigError: a size that is not a whole number in 32..256.
    """
    if not isinstance(size, int) or not 32 <= size <= 256:
        raise ConfigError(f"size of an image: expected a whole number from 32 to 256, got {size!r}")
    n, at_once = len(p["age"]), max(1, PIXELS_AT_ONCE // (size * size))
    parts = []
    for start in range(0, n, at_once):
        chosen = slice(start, start + at_once)
        parts.append(
            _render({k: v[chosen] for k, v in u.items()}, {k: v[chosen] for k, v in p.items()}, size, knobs)
        )
    return torch.cat(parts) if parts else p["age"].new_zeros(0, 1, size, size)


def counterfactual(
    u: Mapping[str, Tensor],
    do: Mapping[str, Any] | None,
    size: int = 64,
    effect: str = "total",
    knobs: Knobs = DEFAULT,
) -> Tensor:
    """The exact images `(B, 1, size, size)` of the same subjects had `do` been so.

    `total`: descendants follow; `direct`: only the edges into the image change; `indirect`: descendants follow,
    and what is set stays as it is.
    Raises GraphError for an intervention that the graph refuses, ConfigError for another effect or size.
    """
    if effect == "total":
        return render(u, attributes(u, do, knobs), size, knobs)
    if effect not in ("direct", "indirect"):
        raise ConfigError(f"effect: expected 'total', 'direct' or 'indirect', got {effect!r}")
    factual = attributes(u, knobs=knobs)
    changed = intervened(do, len(factual["age"]), factual["age"].device, knobs)
    if effect == "direct":
        return render(u, {**factual, **changed}, size, knobs)
    return render(u, {**attributes(u, do, knobs), **{name: factual[name] for name in changed}}, size, knobs)


def _render(u: Mapping[str, Tensor], p: Mapping[str, Tensor], size: int, knobs: Knobs) -> Tensor:
    dtype, device = p["age"].dtype, p["age"].device
    grid = pixel_grid(size, dtype, device)
    image_x, image_y = grid.repeat(size), grid.repeat_interleave(size)
    x, y = zoom(knobs.planted, u, p, *body_coordinates(u, image_x, image_y, knobs))
    lengths = paths(geometry(u, p, knobs), u["vessels"], x, y, 2.0 / size)
    primary = torch.exp(-SOFT_ATTENUATION * lengths.soft - BONE_ATTENUATION * lengths.bone)
    scatter = SCATTER * torch.exp(-SOFT_ATTENUATION * SCATTER_ATTENUATION * lengths.body)
    film = -torch.log(primary + scatter) + knobs.pixel_noise * NOISE * pixel_noise(u["pixels"], size, dtype)
    exposure, contrast = _acquisition(u, p, knobs, dtype)
    film = film + exposure
    texture = total(knobs.planted, "texture", p)
    if texture is not None:
        film = film + _texture(u, texture, image_x, image_y)
    image = 1.0 / (1.0 + torch.exp(contrast * (LEVEL - film)))
    opacity = total(knobs.planted, "marker", p)
    if opacity is not None:
        covered = opacity.clamp(0.0, 1.0).to(dtype)[:, None] * marker_mask(image_x, image_y, 2.0 / size)
        image = image + covered * (1.0 - image)
    return image.view(-1, 1, size, size)


def _acquisition(
    u: Mapping[str, Tensor], p: Mapping[str, Tensor], knobs: Knobs, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Offset in log exposure and contrast of each film, `(B, 1)`."""
    drawn = knobs.variation * u["film"].clamp(-2.5, 2.5)
    exposure, contrast = 0.12 * drawn[:, 0], CONTRAST * (1.0 + 0.12 * drawn[:, 1])
    added, steeper = total(knobs.planted, "exposure", p), total(knobs.planted, "contrast", p)
    if added is not None:
        exposure = exposure + added
    if knobs.has_site:
        exposure = exposure + law_of_site(knobs.sites, "exposure", p[SITE])
    if steeper is not None:
        contrast = contrast * torch.exp(steeper)
    return exposure.to(dtype)[:, None], contrast.to(dtype)[:, None]


def _texture(u: Mapping[str, Tensor], strength: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A pattern of deviation `|strength|` `(B,)` in a band of spatial frequencies; a negative one is coarser."""
    frequency = (9.0 + 2.5 * strength.sign()).to(x.dtype)[:, None]
    drawn = (6.283185307 * u["texture"]).to(x.dtype)
    waves = torch.zeros(len(drawn), len(x), dtype=x.dtype, device=x.device)
    for i in range(3):
        angle, phase = drawn[:, i : i + 1], drawn[:, 3 + i : 4 + i]
        along = torch.cos(angle) * x + torch.sin(angle) * y
        waves = waves + torch.cos(3.14159265 * frequency * along + phase)
    return strength.abs().to(x.dtype)[:, None] * waves * (2.0 / 3.0) ** 0.5
