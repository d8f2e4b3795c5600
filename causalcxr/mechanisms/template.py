"""What parents alone predict of an image, by least squares: a mean film, what grows brighter, and what moves.

    template(parents) = mean + sum over k of feature_k brightness_k
    image            := warp(film, displacement)     displacement = sum over k of feature_k field_k

Age lowers the collar bones, a man's chest is wider: edges and ribs move, finer than any latent resolves.
Regressed on the parents, an image changes by `-gradient of the mean * field` where things move, and by something
smooth where they grow brighter, so the means of a training split determine the fields. They are solved for in
closed form, with smoothness as the prior; then images are warped back to where the average person has everything,
and regressed again. A network that learns the same by gradient steps finds much that is not there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Template"]

_SIDE = 16  # of the grid that the fields live on, at most
_FITTED_SIZE = 64  # pixels; for the fields larger images are shrunk to it: they are smooth
# Standard deviations that the fit of the fields expects, for one unit of a feature, lengths in image widths:
_STRAIN = 0.05  # of a displacement's slope
_SHIFT = 0.03  # of a displacement
_BRIGHTNESS = 0.02  # of a smooth change of brightness, in [0, 1] units
_MISFIT = 0.002  # of a pixel's mean that is neither, in [0, 1] units

Rows = Iterable[tuple[Tensor, Tensor, Tensor]]


class Template(nn.Module):
    """The mean film and the effects of `features` numbers that describe the parents, none until `fit`.

    `mean`: `(C, H, W)` in [0, 1]. `brightness`: `(features, C, H, W)`. `field`: `(features, 2, side, side)`,
    displacements to the right and down in image widths. All are of the average person, whose features are
    `reference`.
    """

    mean: Tensor
    brightness: Tensor
    field: Tensor
    reference: Tensor

    def __init__(self, features: int, channels: int, size: int):
        super().__init__()
        side = min(_SIDE, size // 4)
        self.register_buffer("mean", torch.full((channels, size, size), 0.5))
        self.register_buffer("brightness", torch.zeros(features, channels, size, size))
        self.register_buffer("field", torch.zeros(features, 2, side, side))
        self.register_buffer("reference", torch.zeros(features))

    def forward(self, features: Tensor) -> Tensor:
        """The film `(B, C, H, W)` that the features `(B, K)` predict, where the average person has everything."""
        with torch.autocast(features.device.type, enabled=False):
            change = (features - self.reference).to(self.mean.dtype)
            return self.mean + torch.einsum("bk,kchw->bchw", change, self.brightness)

    def warp(self, film: Tensor, features: Tensor) -> Tensor:
        """Move a film `(B, C, H, W)` to where people with the features `(B, K)` have everything."""
        return self._resample(film, features - self.reference, "bilinear")

    def unwarp(self, image: Tensor, features: Tensor) -> Tensor:
        """Undo `warp`, to first order in the displacement."""
        return self._resample(image, self.reference - features, "bilinear")

    def carry(self, detail: Tensor, change: Tensor) -> Tensor:
        """Move detail `(B, C, H, W)` along with a change of the features `(B, K)`; bit for bit itself without one.

        Cubic interpolation, which blurs fine detail less.
        """
        moved = self._resample(detail, change, "bicubic")
        return torch.where((change != 0).any(dim=1)[:, None, None, None], moved, detail)

    def _resample(self, image: Tensor, change: Tensor, mode: str) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            shift = torch.einsum("bk,kdij->bdij", change.to(self.field.dtype), self.field)
            shift = F.interpolate(shift, size=image.shape[-1], mode="bilinear", align_corners=False)
            still = torch.eye(2, 3, dtype=shift.dtype, device=shift.device)[None]
            grid = F.affine_grid(still, [1, 1, *image.shape[-2:]], align_corners=False)
            grid = grid - 2 * shift.movedim(1, -1)  # from -1 to 1 are two
            image = image.to(shift.dtype)
            return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)

    @torch.no_grad()
    def fit(self, rows: Callable[[], Rows]) -> None:
        """Fit to batches of features `(B, K)`, other causes `(B, M)` and images `(B, C, H, W)` in [0, 1].

        The other causes are held fixed, and absent from the template where they are 0. Goes over the rows twice.
        """
        self.field.zero_()
        means = _regress((features, others, _shrink(images)) for features, others, images in rows())
        self.reference.copy_(means.reference)
        self.field.copy_(_solve(means, self.field.shape[-1]))
        film = _regress((features, others, self.unwarp(images, features)) for features, others, images in rows())
        self.mean.copy_(film.mean)
        self.brightness.copy_(film.slopes)


@dataclass(frozen=True)
class _Regression:
    """Of images on features and other causes: mean image without the latter, slopes and their variances.

    `mean` `(C, S, S)` at the features' mean, the `reference`; `slopes`, `variances` `(K, C, S, S)`.
    """

    mean: Tensor
    slopes: Tensor
    variances: Tensor
    reference: Tensor


def _regress(rows: Rows) -> _Regression:
    """Least squares pixel by pixel in one pass, float64 on the CPU. What is constant or redundant has no slope."""
    n, k, shape = 0, 0, torch.Size()
    known_sum, known_square, image_sum, image_square, product = (torch.zeros((), dtype=torch.float64),) * 5
    for features, others, images in rows:
        known = torch.cat([features, others], dim=1).double().cpu()
        pixels = images.flatten(1).double().cpu()
        n, k, shape = n + len(known), features.shape[1], images.shape[1:]
        known_sum, known_square = known_sum + known.sum(dim=0), known_square + known.T @ known
        image_sum, image_square = image_sum + pixels.sum(dim=0), image_square + pixels.square().sum(dim=0)
        product = product + known.T @ pixels
    centre, mean = known_sum / n, image_sum / n
    inverse = torch.linalg.pinv(known_square / n - torch.outer(centre, centre), hermitian=True, rtol=1e-9)
    shared = product / n - torch.outer(centre, mean)
    slopes = inverse @ shared
    left = (image_square / n - mean.square() - (slopes * shared).sum(dim=0)).clamp_min(0)
    variances = inverse.diagonal()[:k, None] * left / n
    mean = mean - centre[k:] @ slopes[k:]
    return _Regression(mean.view(shape), slopes[:k].view(-1, *shape), variances.view(-1, *shape), centre[:k])


def _solve(found: _Regression, side: int) -> Tensor:
    """The fields `(K, 2, side, side)` whose displacement explains the slopes best, beside smooth brightness."""
    design, precision = _design(found.mean, side)
    fields = []
    for slope, variance in zip(found.slopes.flatten(1), found.variances.flatten(1), strict=True):
        weighted = design / (variance + _MISFIT**2)[:, None]
        fields.append(torch.linalg.solve(design.T @ weighted + precision, weighted.T @ slope))
    return torch.stack(fields)[:, : 2 * side**2].view(-1, 2, side, side)


def _design(mean: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What a unit of every unknown does to the image, `(C * S * S, unknowns)`, and their prior precision.

    Unknowns: the displacement on its grid, to the right and down; of every channel, brightness on a grid, and
    exposure and contrast of the film, whose curve is steepest in the middle.
    """
    channels, size = mean.shape[0], mean.shape[-1]
    grid = _interpolation(side, size)
    down, right = torch.gradient(mean * size, dim=(1, 2))
    shift = torch.cat([-slope.reshape(-1, 1) * grid.repeat(channels, 1) for slope in (right, down)], dim=1)
    curve = [mean * (1 - mean), mean * (1 - mean) * (mean - 0.5)]
    film = torch.stack([one.flatten(1) for one in curve], dim=2)
    brightness = torch.block_diag(*[torch.cat([grid, of_channel], dim=1) for of_channel in film])
    rough = _roughness(side) * (side / _STRAIN) ** 2 + torch.eye(side**2, dtype=mean.dtype) / _SHIFT**2
    faint = torch.tensor([_BRIGHTNESS**-2] * side**2 + [1.0] * len(curve), dtype=mean.dtype).repeat(channels)
    return torch.cat([shift, brightness], dim=1), torch.block_diag(rough, rough, torch.diag(faint))


def _shrink(images: Tensor) -> Tensor:
    return F.interpolate(images, size=_FITTED_SIZE, mode="area") if images.shape[-1] > _FITTED_SIZE else images


def _interpolation(side: int, size: int) -> Tensor:
    """Bilinear, from a grid to pixels: `(size * size, side * side)`."""
    nodes = torch.eye(side**2, dtype=torch.float64).view(-1, 1, side, side)
    return F.interpolate(nodes, size=size, mode="bilinear", align_corners=False).flatten(1).T


def _roughness(side: int) -> Tensor:
    """The matrix of the sum of squared differences between neighbours on a grid, `(side^2, side^2)`."""
    step = torch.diag(torch.ones(side - 1, dtype=torch.float64), 1) - torch.eye(side, dtype=torch.float64)
    line, same = step[:-1].T @ step[:-1], torch.eye(side, dtype=torch.float64)
    return torch.kron(line, same) + torch.kron(same, line)
