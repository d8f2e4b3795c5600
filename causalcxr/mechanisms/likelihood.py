"""8-bit images: their levels in [0, 1], and a Gaussian per pixel, integrated over the width of a grey level."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

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


def pixel_noise(image: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """The noise `e` with `clip(loc + scale * e) = image`, same shape as `image`.

    It is `(image - loc) / scale`, except where the value lies on the border of the range and the unclipped mean
    beyond it: every noise up to a bound gives that value, and 0 is the likeliest of them.
    """
    noise = (image - loc) / scale
    censored = ((image <= 0) & (loc <= 0)) | ((image >= 1) & (loc >= 1))
    return torch.where(censored, torch.zeros_like(noise), noise)


def bits_per_dimension(nats: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Nats per image `(B,)` as bits per pixel and channel; `event_shape` is `(C, H, W)`."""
    return nats / (math.prod(event_shape) * math.log(2))
