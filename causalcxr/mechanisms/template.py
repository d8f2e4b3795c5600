"""What parents alone predict of an image, by least squares: a mean film, what grows brighter, and what moves.

    template(parents) = mean + sum over k of feature_k brightness_k
    image            := warp(film, displacement)     displacement = sum over k of feature_k field_k

Age lowers the collar bones, a man's chest is wider: edges and ribs move, finer than any latent resolves.
Regressed on the parents, an image changes by `-gradient of the mean * field` where things move, and by something
smooth where they grow brighter, so the means of a training split determine the fields. They are solved for in
closed form, with smoothness as the prior; then images are warped back to where the average person has everything,
and regressed again. A network that learns the same by gradient steps finds much that is not there.

Any image mechanism can stand on it: it models what the template leaves, `unwarp(image) - template`, and adds what
it makes to the template again. Detail that it keeps of a patient is carried along with a change of the parents.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as setting

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["Template", "TemplateConfig"]

_SIDE = 16  # of the grid that the fields live on, at most
_FITTED_SIZE = 64  # pixels; for the fields larger images are shrunk to it: they are smooth
# Standard deviations that the fit of the fields expects, for one unit of a feature, lengths in image widths:
_STRAIN = 0.05  # of a displacement's slope
_SHIFT = 0.03  # of a displacement
_BRIGHTNESS = 0.02  # of a smooth change of brightness, in [0, 1] units
_MISFIT = 0.002  # of a pixel's mean that is neither, in [0, 1] units
_WINDOW = 3  # pixels, over which the local variance of a residual is taken
_MEDIAN = 0.6745  # of the magnitude of a standard normal number

Rows = Iterable[tuple[Tensor, Tensor]]


@dataclass
class TemplateConfig:
    """What parents alone predict of an image, solved for in closed form.

    `of`: the parents that move what it shows and change its brightness smoothly, such as sex and age; empty: no
    template. A finding does not belong there: it adds something, in a place of its own. For images that lie on top
    of each other, such as films, and not for digits. `level`: a continuous parent above 0 that is the level of the
    image by definition, the median of its pixels in the upper half of their range, as the intensity of a digit
    (Castro et al. 2019, arXiv:1809.10780). The image is proportional to it, and no other parent changes it. Empty:
    none.
    """

    of: list[str] = setting(default_factory=list)
    level: str = ""


class Template(nn.Module):
    """The mean film and the effects of the config's `of`, parents that `encoder` describes by numbers.

    There are none until `fit`. All methods take the features `(B, F)` of all parents, and look at the K that
    describe those in `of`. `mean`: `(C, H, W)` in [0, 1]. `brightness`: `(K, C, H, W)`. `field`: `(K, 2, side,
    side)`, displacements to the right and down in image widths. All are of the average person, whose features are
    `reference` `(K,)`. With an empty `of` the mean is mid-grey and nothing moves.

    Raises ConfigError: a name that is no parent, or one that can't be a level.
    """

    mean: Tensor
    brightness: Tensor
    field: Tensor
    reference: Tensor
    columns: Tensor
    others: Tensor

    def __init__(self, config: TemplateConfig, encoder: ParentEncoder, channels: int, size: int):
        super().__init__()
        _check(config, encoder.parents)
        columns = encoder.columns_of(config.of).nonzero().flatten()
        self.of, self.level = tuple(config.of), config.level
        self._encoder = (encoder,)  # in a tuple, for it is a part of the mechanism and not of the template
        k, side = len(columns), max(1, min(_SIDE, size // 4))
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("others", ~encoder.columns_of([self.level]), persistent=False)
        self.register_buffer("mean", torch.full((channels, size, size), 0.5))
        self.register_buffer("brightness", torch.zeros(k, channels, size, size))
        self.register_buffer("field", torch.zeros(k, 2, side, side))
        self.register_buffer("reference", torch.zeros(k))

    def forward(self, features: Tensor) -> Tensor:
        """The film `(B, C, H, W)` that the features predict, where the average person has everything."""
        with torch.autocast(features.device.type, enabled=False):
            return self.mean + torch.einsum("bk,kchw->bchw", self._change(features), self.brightness)

    def warp(self, film: Tensor, features: Tensor) -> Tensor:
        """Move a film `(B, C, H, W)` to where people with these features have everything."""
        return self._resample(film, self._change(features), "bilinear")

    def unwarp(self, image: Tensor, features: Tensor) -> Tensor:
        """Undo `warp`, to first order in the displacement."""
        return self._resample(image, -self._change(features), "bilinear")

    def carry(self, residual: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Move a residual `(B, C, H, W)` along from the features `before` to those `after`.

        Its detail moves, and the noise of single pixels stays where it is, for no anatomy made it. Cubic
        interpolation, which blurs fine detail less. Where nothing changes it is bit for bit itself.
        """
        if not self.of:
            return residual
        change, detail = (after - before)[:, self.columns], _detail(residual)
        moved = residual + (self._resample(detail, change, "bicubic") - detail)
        return torch.where((change != 0).any(dim=1)[:, None, None, None], moved, residual)

    def gain(self, features: Tensor) -> Tensor:
        """The level by the parents, `(B, 1, 1, 1)` in units of the average person's: 1 if none of them is it."""
        if not self.level:
            return features.new_ones(len(features), 1, 1, 1)
        (encoder,) = self._encoder
        values = encoder.values_of(self.level, features)
        mean = encoder.values_of(self.level, torch.zeros_like(features[:1]))
        return (values / mean).view(-1, 1, 1, 1)

    def own_level(self, image: Tensor, gain: Tensor) -> Tensor | None:
        """What an image's level is in units of the gain, `(B, 1, 1, 1)`; None if no parent is its level."""
        return _level(image) / gain if self.level else None

    def at_level(self, image: Tensor, own: Tensor | None, gain: Tensor) -> Tensor:
        """An image brought to a level of its `own` in units of the gain; as it is without one."""
        return image if own is None else image * (own * gain / _level(image))

    def without_gain(self, features: Tensor) -> Tensor:
        """The features of what acts in another way than by the gain; its own are those of the average person."""
        return features * self.others if self.level else features

    def _change(self, features: Tensor) -> Tensor:
        """Of the features in question, from the average person `(B, K)`."""
        return features[:, self.columns].to(self.mean.dtype) - self.reference

    def _resample(self, image: Tensor, change: Tensor, mode: str) -> Tensor:
        if not self.of:
            return image
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
        """Fit to batches of features `(B, F)` and images `(B, C, H, W)` in [0, 1].

        The other parents are held fixed, and absent from the template where their features are 0. Goes over the
        rows twice.
        """
        if not self.of:
            return
        self.field.zero_()
        means = _regress((*self._split(features), _shrink(images)) for features, images in rows())
        self.reference.copy_(means.reference)
        self.field.copy_(_solve(means, self.field.shape[-1]))
        film = _regress((*self._split(features), self.unwarp(images, features)) for features, images in rows())
        self.mean.copy_(film.mean)
        self.brightness.copy_(film.slopes)

    def _split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The features in question `(B, K)`, and all others."""
        others = torch.ones(features.shape[1], dtype=torch.bool, device=features.device)
        others[self.columns] = False
        return features[:, self.columns], features[:, others]


def _check(config: TemplateConfig, parents: Sequence[Variable]) -> None:
    names = [parent.name for parent in parents]
    for name in config.of:
        if name == config.level:
            raise ConfigError(f"model.template has '{name}' in both of and level; leave it out of one")
        if name not in names:
            raise ConfigError(f"model.template.of has '{name}', no parent of the image; {nearest(name, names)}")
    positive = [p.name for p in parents if not p.is_discrete and p.bounds[0] > 0]
    if (name := config.level) and name not in positive:
        raise ConfigError(
            f"model.template.level is '{name}', no continuous parent of the image above 0; "
            f"{nearest(name, positive)}"
        )


def _level(image: Tensor) -> Tensor:
    """Median of the pixels of an image `(B, C, H, W)` in the upper half of their range, `(B, 1, 1, 1)`."""
    pixels = image.clamp(0, 1).flatten(1)
    middle = (pixels.amin(dim=1, keepdim=True) + pixels.amax(dim=1, keepdim=True)) / 2
    bright = pixels.where(pixels >= middle, pixels.new_tensor(torch.nan))
    return bright.nanmedian(dim=1).values.clamp_min(1e-3).view(-1, 1, 1, 1)


def _detail(residual: Tensor) -> Tensor:
    """A residual `(B, C, H, W)` without the noise of single pixels: Wiener's filter (Lee 1980).

    The noise is measured on differences along both diagonals, which little detail has (Donoho and Johnstone 1994).
    """
    down = residual[:, :, 1:] - residual[:, :, :-1]
    crossed = (down[..., 1:] - down[..., :-1]).abs() / 2
    noise = (crossed.flatten(1).median(dim=1).values / _MEDIAN).square()[:, None, None, None]
    around = F.avg_pool2d(residual.square(), _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
    return residual * (1 - noise / around.clamp_min(1e-12)).clamp_min(0)


@dataclass(frozen=True)
class _Regression:
    """Of images on features and other causes: mean image without the latter, slopes and their variances.

    `mean` `(C, S, S)` at the features' mean, the `reference`; `slopes`, `variances` `(K, C, S, S)`.
    """

    mean: Tensor
    slopes: Tensor
    variances: Tensor
    reference: Tensor


def _regress(rows: Iterable[tuple[Tensor, Tensor, Tensor]]) -> _Regression:
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
