"""The image network's configuration and its parts: baseline, encoder, posterior, prior stream and decoder.

Feature maps are channels-last, and the image is folded into channels at the door (space to depth): on a CPU both
are worth a factor of several.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from causalcxr.support.bounds import bounded, bounded_list, check_bounds
from causalcxr.support.errors import ConfigError

__all__ = [
    "Baseline",
    "Decoder",
    "Encoder",
    "HVAEConfig",
    "Posterior",
    "Prior",
    "check_config",
    "embedding_network",
]

_LOG_SCALE_LIMIT = 5.0  # a latent's log-scale stays within +-5, so that the KL is finite from the first step
_INITIAL_SCALE = 0.3  # of a pixel, before training: about the spread of an image in [0, 1]
_LARGEST_SCALE = 0.5  # of a pixel; nothing in [0, 1] spreads wider
# Before training the parents' embedding has entries of about 1, and moves every channel by about .3. With torch's
# default, some thirty times fainter, the latents learn first what the parents determine, and keep it:
# do(parent) then moves the image half the way.
_EMBEDDING_GAIN, _MODULATION_GAIN = 1.5, 0.3
_BASELINE_SIDE = 16  # at most; the baseline is a mean over many people and has no fine detail
_HEAD_GAIN = 0.3  # of a convolution that makes statistics, before training: distributions start close together


@dataclass
class HVAEConfig:
    """Size and shape of the network. Lists run from the finest resolution to the coarsest.

    `stem`: side of the pixel block that is folded into channels. `resolutions`: sides of the feature maps; the
    first is `data.size / stem`, each a multiple of the next. `widths`: channels at each. `encoder_blocks`,
    `decoder_blocks`: residual blocks at each; every decoder block is a layer of the hierarchy with `latents`
    channels of its own (0: no latent there). `embedding`: width of the parents' embedding. `beta`: weight of the
    KL term in the training loss (1: the evidence lower bound). `scale_floor`: smallest pixel scale, in [0, 1]
    units. `baseline`: start from the image that the parents alone predict; for images that lie on top of each
    other, such as X-rays, and not for digits; a template takes its place. `checkpoint`: recompute activations in
    the backward pass, for large images on a GPU.
    """

    stem: int = bounded(2, least=1)
    resolutions: list[int] = bounded_list([32, 16, 8, 4, 1], least=1)
    widths: list[int] = bounded_list([32, 48, 64, 96, 128], least=1)
    encoder_blocks: list[int] = bounded_list([1, 1, 1, 1, 1], least=0)
    decoder_blocks: list[int] = bounded_list([1, 1, 1, 1, 1], least=1)
    latents: list[int] = bounded_list([4, 8, 8, 16, 32], least=0)
    embedding: int = bounded(64, least=1)
    beta: float = bounded(1.0, least=0)
    scale_floor: float = bounded(0.0005, above=0)
    baseline: bool = True
    checkpoint: bool = False


def embedding_network(width: int, embedding: int) -> nn.Module:
    """The parents' features `(B, width)` to their embedding `(B, embedding)`."""
    layers = [nn.Linear(width, embedding), nn.Linear(embedding, embedding)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=_EMBEDDING_GAIN * math.sqrt(2 / layer.in_features))
        nn.init.normal_(layer.bias, std=_MODULATION_GAIN)
    return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU())


class Baseline(nn.Module):
    """The image that the parents alone predict, `(B, channels, size, size)`: smooth, from a coarse grid."""

    def __init__(self, config: HVAEConfig, channels: int):
        super().__init__()
        side = max([side for side in config.resolutions if side <= _BASELINE_SIDE], default=1)
        self.grid, self.size = (channels, side, side), config.resolutions[0] * config.stem
        self.project = _from_embedding(config.embedding, channels * side**2)
        nn.init.constant_(self.project.bias, 0.5)

    def forward(self, embedding: Tensor) -> Tensor:
        grid = self.project(embedding).view(-1, *self.grid)
        with torch.autocast(grid.device.type, enabled=False):
            grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
            return F.interpolate(grid, size=self.size, mode="bilinear", align_corners=False)


class _Block(nn.Module):
    """A residual block: 3 x 3 convolution, the parents' scale and shift per channel, 1 x 1 convolution."""

    def __init__(self, width: int, resolution: int, embedding: int = 0):
        super().__init__()
        self.inner = _conv(width, width, resolution)
        self.outer = nn.Conv2d(width, width, 1)
        self.modulation = _from_embedding(embedding, 2 * width) if embedding else None

    def forward(self, hidden: Tensor, embedding: Tensor | None = None) -> Tensor:
        inner = _modulate(self.inner(F.silu(hidden)), self.modulation, embedding)
        return hidden + self.outer(F.silu(inner))


class Encoder(nn.Module):
    """An image, or its residual from the baseline, to one feature map per resolution, finest first.

    It goes down to the coarsest resolution that has a latent.
    """

    def __init__(self, config: HVAEConfig, channels: int):
        super().__init__()
        self.fold, self.recompute = config.stem, config.checkpoint
        self.stem = nn.Conv2d(channels * config.stem**2, config.widths[0], 3, padding=1)
        deepest = max(level for level, channels_of in enumerate(config.latents) if channels_of)
        self.down = nn.ModuleList(
            nn.Conv2d(config.widths[i], config.widths[i + 1], ratio, stride=ratio)
            for i, ratio in enumerate(_ratios(config)[:deepest])
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Block(config.widths[i], config.resolutions[i]) for _ in range(config.encoder_blocks[i]))
            for i in range(deepest + 1)
        )

    def forward(self, residual: Tensor) -> list[Tensor]:
        folded = _fold(residual, self.fold)
        hidden, features = self.stem(folded), []
        for i, blocks in enumerate(self.blocks):
            if i:
                hidden = self.down[i - 1](hidden)
            for block in cast(nn.ModuleList, blocks):
                hidden = _run(block, self.recompute, hidden)
            features.append(hidden)
        return features


class Posterior(nn.Module):
    """`q(z_l | x, z_<l, parents)`: location (relative to the prior's) and log-scale of one layer's latent."""

    def __init__(self, config: HVAEConfig):
        super().__init__()
        self.recompute = config.checkpoint
        layers = [layer for layer in _layers(config) if layer.latents]
        self.levels = [layer.level for layer in layers]
        self.heads = nn.ModuleList(_PosteriorHead(layer, config.embedding) for layer in layers)

    def forward(self, layer: int, hidden: Tensor, features: list[Tensor], embedding: Tensor) -> list[Tensor]:
        joint = hidden + features[self.levels[layer]]
        return _loc_and_log_scale(_run(self.heads[layer], self.recompute, joint, embedding))


class _PosteriorHead(nn.Module):
    def __init__(self, layer: "_Layer", embedding: int):
        super().__init__()
        self.inner = _conv(layer.width, layer.width, layer.side)
        self.modulation = _from_embedding(embedding, 2 * layer.width)
        self.outer = nn.Conv2d(layer.width, 2 * layer.latents, 1)

    def forward(self, joint: Tensor, embedding: Tensor) -> Tensor:
        return self.outer(F.silu(_modulate(self.inner(F.silu(joint)), self.modulation, embedding)))


class Prior(nn.Module):
    """`p(z_l | z_<l)`, a stream of its own that no parent enters. The coarsest latent is standard normal."""

    def __init__(self, config: HVAEConfig):
        super().__init__()
        self.recompute = config.checkpoint
        layers = [layer for layer in _layers(config) if layer.latents]
        self.shapes = [(layer.latents, layer.side, layer.side) for layer in layers]
        self.steps = nn.ModuleList(_PriorStep(a, b) for a, b in pairwise(layers))

    def forward(
        self, layer: int, state: Tensor | None, previous: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Location and log-scale of a layer's latent given the one before it, and the stream's next state."""
        if previous is None:
            zero = torch.zeros(())
            return [zero, zero], None
        statistics, state = _run(self.steps[layer - 1], self.recompute, previous, state)
        return _loc_and_log_scale(statistics), state


class _PriorStep(nn.Module):
    def __init__(self, before: "_Layer", after: "_Layer"):
        super().__init__()
        self.inject = nn.Conv2d(before.latents, before.width, 1)
        self.up = _up(before, after)
        self.block = _Block(after.width, after.side)
        self.head = nn.Conv2d(after.width, 2 * after.latents, 1)
        _scale_weight(self.head, _HEAD_GAIN)

    def forward(self, previous: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        injected = self.inject(previous)
        hidden = self.block(self.up(injected if state is None else state + injected))
        return self.head(F.silu(hidden)), hidden


class Decoder(nn.Module):
    """Latents and parents to the mean and the scale of every pixel."""

    def __init__(self, config: HVAEConfig, channels: int, has_baseline: bool):
        super().__init__()
        layers = _layers(config)
        self.recompute, self.unfold, self.floor = config.checkpoint, config.stem, config.scale_floor
        self.stochastic = [bool(layer.latents) for layer in layers]
        self.first = _from_embedding(config.embedding, layers[0].width * layers[0].side ** 2)
        self.first_shape = (layers[0].width, layers[0].side, layers[0].side)
        self.enter = len(layers) - config.decoder_blocks[0]  # the first layer at the finest resolution
        if has_baseline:
            self.from_baseline = nn.Conv2d(channels * config.stem**2, layers[-1].width, 1)
        self.inject = nn.ModuleList(nn.Conv2d(a.latents, a.width, 1) for a in layers if a.latents)
        self.blocks = nn.ModuleList(_Block(a.width, a.side, config.embedding) for a in layers)
        self.up = nn.ModuleList(_up(a, b) for a, b in pairwise(layers))
        last = layers[-1]
        self.modulation = _from_embedding(config.embedding, 2 * last.width)
        self.head = nn.Conv2d(last.width, 2 * channels * config.stem**2, 1)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.weight.mul_(_HEAD_GAIN)
            self.head.bias.zero_()
            self.head.bias[channels * config.stem**2 :] = _scale_logit(_INITIAL_SCALE)

    def forward(
        self, embedding: Tensor, baseline: Tensor | None, latent: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean and scale `(B, C, H, W)`.

        `latent(layer, hidden)` gives each layer's latent when it is reached.
        """
        hidden, drawn = self.first(embedding).view(-1, *self.first_shape), 0
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for i, block in enumerate(self.blocks):
            if i:
                hidden = self.up[i - 1](hidden)
            if i == self.enter and baseline is not None:
                hidden = hidden + self.from_baseline(_fold(baseline - 0.5, self.unfold))
            if self.stochastic[i]:
                hidden = hidden + self.inject[drawn](latent(drawn, hidden))
                drawn += 1
            hidden = _run(block, self.recompute, hidden, embedding)
        pixels = self.head(F.silu(_modulate(hidden, self.modulation, embedding)))
        with torch.autocast(pixels.device.type, enabled=False):
            pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
            loc, scale = F.pixel_shuffle(pixels, self.unfold).chunk(2, dim=1)
            return loc if baseline is None else baseline + loc, self.floor + _bounded_scale(scale)


@dataclass(frozen=True)
class _Layer:
    level: int  # index into the config's lists
    side: int
    width: int
    latents: int


def _layers(config: HVAEConfig) -> list[_Layer]:
    """The hierarchy from coarse to fine."""
    layers = []
    for level in reversed(range(len(config.resolutions))):
        layer = _Layer(level, config.resolutions[level], config.widths[level], config.latents[level])
        layers += [layer] * config.decoder_blocks[level]
    return layers


def _ratios(config: HVAEConfig) -> list[int]:
    return [a // b for a, b in pairwise(config.resolutions)]


def _fold(image: Tensor, side: int) -> Tensor:
    return F.pixel_unshuffle(image, side).contiguous(memory_format=torch.channels_last)


def _conv(channels_in: int, channels_out: int, resolution: int) -> nn.Conv2d:
    """3 x 3, or 1 x 1 where a larger kernel would only see padding."""
    kernel = 3 if resolution > 2 else 1
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


def _up(before: _Layer, after: _Layer) -> nn.Module:
    """From one layer's feature map to the next one's: a 1 x 1 convolution, then channels unfold into space."""
    ratio = after.side // before.side
    if ratio == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before.width, after.width * ratio**2, 1), nn.PixelShuffle(ratio))


def _from_embedding(embedding: int, channels: int) -> nn.Linear:
    layer = nn.Linear(embedding, channels)
    nn.init.normal_(layer.weight, std=_MODULATION_GAIN / math.sqrt(embedding))
    nn.init.zeros_(layer.bias)
    return layer


def _bounded_scale(logit: Tensor) -> Tensor:
    """The scale of pixels: positive, and not so large that an unusual latent would give noise alone."""
    return _LARGEST_SCALE * torch.sigmoid(logit)


def _scale_logit(scale: float) -> float:
    """What `_bounded_scale` turns into a scale."""
    return math.log(scale / (_LARGEST_SCALE - scale))


def _modulate(hidden: Tensor, modulation: nn.Module | None, embedding: Tensor | None) -> Tensor:
    """`hidden * (1 + scale) + shift` per channel, both linear in the parents' embedding."""
    if modulation is None:
        return hidden
    scale, shift = modulation(embedding)[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, hidden, 1 + scale)


def _loc_and_log_scale(statistics: Tensor) -> list[Tensor]:
    statistics = statistics.to(torch.promote_types(statistics.dtype, torch.float32))
    loc, log_scale = statistics.chunk(2, dim=1)
    return [loc, _LOG_SCALE_LIMIT * torch.tanh(log_scale / _LOG_SCALE_LIMIT)]


def _run(module: nn.Module, recompute: bool, *inputs: Tensor | None):
    if recompute and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


def _scale_weight(conv: nn.Conv2d, gain: float) -> None:
    with torch.no_grad():
        conv.weight.mul_(gain)


def check_config(config: HVAEConfig, size: int) -> None:
    """Refuse impossible values, and lists that do not fit one another or the image's size."""
    check_bounds(config, "model.hvae.")
    sides = list(config.resolutions)
    for key in ("widths", "encoder_blocks", "decoder_blocks", "latents"):
        if len(getattr(config, key)) != len(sides):
            got = len(getattr(config, key))
            raise ConfigError(f"model.hvae.{key}: {got} entries, expected {len(sides)}, one per resolution")
    if sides[0] * config.stem != size:
        raise ConfigError(
            f"model.hvae.resolutions: starts with {sides[0]}, expected data.size / stem = {size / config.stem:g}; "
            f"the presets hvae32 to hvae192 fit theirs"
        )
    for fine, coarse in pairwise(sides):
        if coarse < 1 or fine % coarse or fine == coarse:
            raise ConfigError(f"model.hvae.resolutions: {fine} is no proper multiple of the next entry, {coarse}")
    if not any(config.latents):
        raise ConfigError("model.hvae.latents: all 0, expected at least one above 0")
