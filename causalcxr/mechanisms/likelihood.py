"""8-bit images: their levels in [0, 1], and a Gaussian per pixel, integrated over the width of a grey level."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from causalcxr.randomness import Draws

__all__ = ["LEVELS", "bits_per_dimension", "discretised_gaussian_log_prob", "image_to_float", "pixel_noise"]

LEVELS = 256
_STEP = 1.0 / (LEVELS - 1)  # distance of two grey levels in [0, 1]


def image_to_float(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 levels to [0, 1]; a floating image is taken to be in [0, 1] already."""
    if image.dtype == torch.uint8:
        return image.to(dtype) / 255
    return image.to(dtype)


def discretised_gaussian_log_prob(image: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log-mass in nats of each pixel's grey level under N(loc, scale^2), same shape as `image`.

    `image`, `loc` and `scale` are in [0, 1] units and any broadcastable shape. Level k has the mass between
    k - 1/2 and k + 1/2; the lowest and the highest level take the tails, so the 256 masses sum to 1. Computed in
    float32 at least, whatever the inputs are (half precision under autocast included). Source: Salimans et al.
    2017 (PixelCNN++), equation 2, with a Gaussian in place of the logistic.
    """
    with torch.autocast(image.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(loc.dtype, scale.dtype), torch.float32)
        image, loc, scale = image.to(dtype), loc.to(dtype), scale.to(dtype)
        centre, half = (image - loc) / scale, 0.5 * _STEP / scale
        # Mirrored to the lower tail, where the normal's log-distribution keeps its precision. The lowest level of
        # a mirrored pixel is the highest of the image.
        mirrored = centre > 0
        lowest, highest = image <= 0.5 * _STEP, image >= 1 - 0.5 * _STEP
        open_below = torch.where(mirrored, highest, lowest)
        open_above = torch.where(mirrored, lowest, highest)
        centre = -centre.abs()
        log_above = torch.special.log_ndtr(centre + half)
        log_above = torch.where(open_above, torch.zeros_like(log_above), log_above)
        log_below = torch.special.log_ndtr(centre - half)
        # log(1 - exp(below - above)); an open lower end has no mass below it. The floor only matters for a level
        # narrower than float32 can tell apart, a scale of more than 100 times the range.
        gap = (log_below - log_above).clamp_max(-torch.finfo(dtype).tiny)
        log_share = torch.log(-torch.expm1(gap))
        return log_above + torch.where(open_below, torch.zeros_like(log_share), log_share)


def pixel_noise(image: Tensor, loc: Tensor, scale: Tensor, draws: Draws | None = None) -> Tensor:
    """A draw of the noise `e` given that `clip(loc + scale * e) = image`, same shape as `image`.

    It is `(image - loc) / scale` where the value lies inside the range. At its ends every noise up to (at 1: from)
    this bound gives the value, so there `e` is a draw of the standard normal beyond the bound.
    """
    draws = draws or Draws(device=loc.device)
    bound = (image - loc) / scale
    saturated = (image <= 0) | (image >= 1)
    depth = draws.exponential(*bound.shape, dtype=bound.dtype)[saturated]
    sign = torch.where(image >= 1, -1, 1)[saturated].to(bound.dtype)
    return bound.masked_scatter(saturated, sign * _normal_below(sign * bound[saturated], depth))


def _normal_below(bound: Tensor, depth: Tensor) -> Tensor:
    """The standard normal value whose tail is `exp(-depth)` of the tail below `bound`; gradients flow to `bound`.

    With an exponential `depth` it is a draw of the normal below the bound. Computed in float64. Below -30 the log
    of the tail falls by `|bound|` per unit to within 0.2 %, so there the draw lies `depth / |bound|` further down.
    """
    bound64, depth64 = bound.double(), depth.double()
    log_tail = torch.special.log_ndtr(bound64.clamp_min(-30)) - depth64
    near = torch.special.ndtri(log_tail.clamp_max(-1e-15).exp())  # of exactly 1 it is infinite
    far = bound64 + depth64 / bound64.clamp_max(-1)
    return torch.where(bound64 < -30, far, near).to(bound.dtype).minimum(bound)


def bits_per_dimension(nats: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Nats per image `(B,)` as bits per pixel and channel; `event_shape` is `(C, H, W)`."""
    return nats / (math.prod(event_shape) * math.log(2))
