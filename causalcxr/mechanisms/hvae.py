"""The image's mechanism: a hierarchical variational autoencoder with an exogenous prior.

    noise u = (z_1 .. z_L, e)          z from the prior stream, which never sees the parents; e standard normal
    image x = clip(m(z, pa) + s(z, pa) e)

Parents enter the posterior and every layer of the decoder, as a scale and a shift per channel. With the config's
`baseline` they also make an image that they alone predict: the encoder sees only the residual from it, and the
decoder adds to it. Otherwise the latents learn what the parents determine, which costs them next to nothing (a
binary parent is worth 0.7 of some hundred nats), and do(parent) moves an X-ray a third of the way. The decoder is
kept apart from the prior and posterior networks, so that a counterfactual costs one lean decoder pass.

With a template (`template.py`) the baseline is a regression, and the parents also move what the image shows, its
mean and the detail of the pixel noise alike.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.hvae_network import (
    Baseline,
    Decoder,
    Encoder,
    HVAEConfig,
    Posterior,
    Prior,
    check_config,
    embedding_network,
)
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise
from causalcxr.mechanisms.likelihood import (
    bits_per_dimension,
    discretised_gaussian_log_prob,
    image_to_float,
    pixel_noise,
)
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = ["HVAE", "Elbo", "HVAEConfig", "HVAENoise"]


_DECODED_PIXELS = 2**17  # at a time on a CPU: feature maps of more leave its cache
_BASELINE_SCALE = 0.1  # of the baseline's regression, in [0, 1] units: about what people differ by


@dataclass(frozen=True)
class HVAENoise(ImageNoise):
    """Exogenous noise of an image: latents `(B, C, h, w)` from coarse to fine, pixel noise `(B, C, H, W)`.

    `features`: `(B, F)`, of the parents under which the pixel noise was abducted, so that it can be carried to
    others; None of fresh white noise, which needs no carrying. `level` `(B, 1, 1, 1)`: the template's `own_level`
    of the image.
    """

    latents: tuple[Tensor, ...]
    pixel: Tensor
    features: Tensor | None = None
    level: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixel)

    def repeat(self, k: int) -> "HVAENoise":
        return self._map(lambda noise: noise.repeat(k, *[1] * (noise.ndim - 1)))

    def select(self, rows: Tensor | slice) -> "HVAENoise":
        return self._map(lambda noise: noise[rows])

    def with_pixel_noise(self, mode: str, draws: Draws) -> "HVAENoise":
        """The same latents with their `e`, with `e = 0`, which makes the decoder's mean, or with a fresh `e`."""
        if mode == "off":
            return replace(self, pixel=torch.zeros_like(self.pixel))
        if mode == "redrawn":
            return replace(self, pixel=draws.normal(*self.pixel.shape, dtype=self.pixel.dtype), features=None)
        return self

    def _map(self, function: Callable[[Tensor], Tensor]) -> "HVAENoise":
        features, level = (None if of is None else function(of) for of in (self.features, self.level))
        return HVAENoise(tuple(function(z) for z in self.latents), function(self.pixel), features, level)


@dataclass(frozen=True)
class Elbo:
    """What one encoder pass and one decoder pass give of `image`, float `(B, C, H, W)` in [0, 1].

    `nll`, `kl`: `(B,)` in nats, the negative evidence lower bound is their sum. `loc`, `scale`: the decoder's mean
    and scale `(B, C, H, W)`. `latents`, `features`, `level`: as in HVAENoise. `auxiliary`: `(B,)` in nats,
    the auxiliary loss that training adds to the bound: the baseline's regression. `draws`: where the noise of
    pixels at the ends of the range comes from. `beta`: the KL's weight in the training loss.
    """

    image: Tensor
    nll: Tensor
    kl: Tensor
    loc: Tensor
    scale: Tensor
    latents: tuple[Tensor, ...]
    auxiliary: Tensor
    features: Tensor
    level: Tensor | None
    draws: Draws
    beta: float = 1.0

    @cached_property
    def noise(self) -> HVAENoise:
        """The noise of the image, abducted in this pass."""
        pixel = pixel_noise(self.image.to(self.loc.dtype), self.loc, self.scale, self.draws)
        return HVAENoise(self.latents, pixel, self.features, self.level)

    def nats(self, kl_share: Tensor | float = 1.0) -> Tensor:
        """The training loss, `(B,)`: nll, beta times a share of KL, and the auxiliary loss."""
        return self.nll + kl_share * self.beta * self.kl + self.auxiliary

    @property
    def loss(self) -> Tensor:
        return bits_per_dimension(self.nats(), self.image.shape[1:])

    @property
    def bound(self) -> Tensor:
        return -(self.nll + self.kl)

    @property
    def mean(self) -> Tensor:
        return self.loc.clamp(0, 1)

    def redrawn(self, draws: Draws) -> Tensor:
        return (self.loc + self.scale * draws.normal(*self.loc.shape, dtype=self.loc.dtype)).clamp(0, 1)


class HVAE(ImageMechanism):
    """`image := clip(m(z, parents) + s(z, parents) e)`. Values are uint8 or float in [0, 1], `(B, C, H, W)`.

    Sources: Child 2021 (arXiv:2011.10650) for the ladder, De Sousa Ribeiro et al. 2023 (arXiv:2306.15764) for the
    exogenous prior. Raises ConfigError: lists that do not fit one another or the image's size.
    """

    pixel_noise = ("kept", "off", "redrawn")
    config: HVAEConfig

    def __init__(
        self,
        variable: Variable,
        parents: Sequence[Variable],
        config: HVAEConfig | None = None,
        size: int = 64,
        template: TemplateConfig | None = None,
    ):
        config = config or HVAEConfig()
        check_config(config, size)
        super().__init__(variable, parents, config, size, template)
        solved = bool(self.template.of)
        self.embed = embedding_network(self.parent_encoder.width, config.embedding)
        trained = config.baseline and not solved
        self.baseline = Baseline(config, variable.channels) if trained else None
        self.encoder = Encoder(config, variable.channels)
        self.posterior = Posterior(config)
        self.prior = Prior(config)
        self.decoder = Decoder(config, variable.channels, has_baseline=config.baseline or solved)
        self.to(memory_format=torch.channels_last)

    def sample_noise(self, n: int, draws: Draws | None = None) -> HVAENoise:
        """n draws of latents and pixel noise. Runs the prior stream only; no parent is asked for."""
        draws, dtype = self._draws(draws), self._dtype
        latents, state = [], None
        for i, shape in enumerate(self.prior.shapes):
            (loc, log_scale), state = self.prior(i, state, latents[-1] if latents else None)
            noise = draws.normal(n, *shape, dtype=dtype)
            latents.append(loc + log_scale.exp() * noise)
        pixel = draws.normal(n, *self.event_shape, dtype=dtype)
        return HVAENoise(tuple(latents), pixel)

    def forward(self, noise: ImageNoise, parents: Batch) -> Tensor:
        """One pass of the decoder alone, on a CPU in parts."""
        assert isinstance(noise, HVAENoise)
        rows = max(1, _DECODED_PIXELS // self.event_shape.numel())
        if noise.pixel.device.type != "cpu" or len(noise) <= rows:
            return self._make(noise, parents)
        values = {parent.name: parents[parent.name] for parent in self.parents}
        parts = [slice(start, start + rows) for start in range(0, len(noise), rows)]
        made = [self._make(noise.select(at), {name: of[at] for name, of in values.items()}) for at in parts]
        return torch.cat(made)

    def _make(self, noise: HVAENoise, parents: Batch) -> Tensor:
        conditions = self._condition(parents)
        loc, scale = self._decode(conditions, lambda layer, _: noise.latents[layer])
        pixel = noise.pixel
        if noise.features is not None:
            pixel = self.template.carry(pixel, noise.features, conditions.features)
        return self.template.at_level(loc + scale * pixel, noise.level, conditions.gain).clamp(0, 1)

    def infer(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Elbo:
        """One encoder pass and one decoder pass: a draw of the latents, and a one-draw estimate of the bound."""
        return self.elbo(value, parents, draws)

    def training_loss(
        self,
        value: Tensor,
        parents: Batch,
        draws: Draws,
        kl_share: Tensor | float = 1.0,
    ) -> Tensor:
        """In bits per dimension."""
        return bits_per_dimension(self.elbo(value, parents, draws).nats(kl_share), self.event_shape)

    def importance_weighted_bound(
        self, value: Tensor, parents: Batch, k: int, draws: Draws | None = None
    ) -> Tensor:
        """`log mean_k p(x, z_k) / q(z_k | x)` over k draws of the latents, `(B,)` in nats (Burda et al. 2016).

        A lower bound of the log-mass in expectation, tighter the larger k is.
        """
        draws = self._draws(draws)
        passes = (self.elbo(value, parents, draws, sampled_kl=True) for _ in range(k))
        return torch.stack([one.bound for one in passes]).logsumexp(dim=0) - math.log(k)

    def elbo(self, value: Tensor, parents: Batch, draws: Draws | None = None, sampled_kl: bool = False) -> Elbo:
        """Both terms of the evidence lower bound, and all that the pass computed on the way.

        `sampled_kl`: of the latents' KL its value at the draw, `log q(z | x) - log p(z)`, instead of its mean.

        Raises DataError: an image of another shape than the config's.
        """
        self.check_shape(value)
        draws, image = self._draws(draws), image_to_float(value, self._dtype)
        conditions = self._condition(parents)
        film = self.template.unwarp(image / conditions.gain, conditions.features)
        features = self.encoder(conditions.residual(film).detach())
        latents: list[Tensor] = []
        kl, state = torch.zeros(len(image), device=image.device, dtype=image.dtype), None

        def draw(layer: int, hidden: Tensor) -> Tensor:
            nonlocal kl, state
            prior, state = self.prior(layer, state, latents[-1] if latents else None)
            loc, log_scale = self.posterior(layer, hidden, features, conditions.embedding)
            loc = loc + prior[0]  # relative to the prior: a posterior that learns nothing costs nothing
            noise = draws.normal(*loc.shape, dtype=loc.dtype)
            latents.append(loc + log_scale.exp() * noise)
            if sampled_kl:
                kl = kl + _log_ratio(noise, log_scale, latents[-1], *prior)
            else:
                kl = kl + _gaussian_kl(loc, log_scale, *prior)
            return latents[-1]

        loc, scale = self._decode(conditions, draw)
        nll = -discretised_gaussian_log_prob(image, loc, scale).sum(dim=(1, 2, 3))
        return Elbo(
            image=image,
            nll=nll,
            kl=kl,
            loc=loc,
            scale=scale,
            latents=tuple(latents),
            auxiliary=conditions.regression_loss(film),
            features=conditions.features,
            level=self.template.own_level(image, conditions.gain),
            draws=draws,
            beta=self.config.beta,
        )

    def _condition(self, parents: Batch) -> "_Conditions":
        """What the parents say of the image before a latent is drawn."""
        given = self.parent_encoder(parents)
        features = self.template.without_gain(given)
        embedding, baseline = self.embed(features), None
        if self.template.of:
            baseline = self.template(features)
        elif self.baseline is not None:
            baseline = self.baseline(embedding)
        return _Conditions(features, embedding, baseline, self.template.gain(given))

    def _decode(self, conditions: "_Conditions", latent: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and scale of the image `(B, C, H, W)`."""
        loc, scale = self.decoder(conditions.embedding, conditions.baseline, latent)
        film = self.template.warp(torch.cat([loc, scale], dim=1), conditions.features)
        loc, scale = (film * conditions.gain).chunk(2, dim=1)
        return loc, scale


@dataclass(frozen=True)
class _Conditions:
    """What is known before a latent is drawn: features, embedding, the film they predict, if any, and its gain."""

    features: Tensor
    embedding: Tensor
    baseline: Tensor | None
    gain: Tensor

    def residual(self, image: Tensor) -> Tensor:
        """The encoder's input: what the parents alone do not predict."""
        return image - (0.5 if self.baseline is None else self.baseline)

    def regression_loss(self, image: Tensor) -> Tensor:
        """Half the squared distance of the baseline to the image, `(B,)`; 0 without one."""
        residual = torch.zeros_like(image) if self.baseline is None else image - self.baseline
        return 0.5 * (residual / _BASELINE_SCALE).square().sum(dim=(1, 2, 3))


def _gaussian_kl(loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_log_scale: Tensor) -> Tensor:
    """KL of two diagonal Gaussians, summed over all but the rows."""
    ratio = 2 * (log_scale - prior_log_scale)
    distance = (loc - prior_loc).square() * torch.exp(-2 * prior_log_scale)
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(dim=(1, 2, 3))


def _log_ratio(noise: Tensor, log_scale: Tensor, z: Tensor, prior_loc: Tensor, prior_log_scale: Tensor) -> Tensor:
    """`log q(z) - log p(z)` of `z = loc + exp(log_scale) noise`, summed over all but the rows."""
    distance = ((z - prior_loc) * torch.exp(-prior_log_scale)).square()
    return (0.5 * (distance - noise.square()) + prior_log_scale - log_scale).sum(dim=(1, 2, 3))
