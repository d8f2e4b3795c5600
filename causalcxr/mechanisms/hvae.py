"""The image's mechanism: a hierarchical variational autoencoder with an exogenous prior.

    noise u = (z_1 .. z_L, e)          z from the prior stream, which never sees the parents; e standard normal
    image x = clip(m(z, pa) + s(z, pa) e)

Parents enter the posterior and every layer of the decoder, as a scale and a shift per channel. With the config's
`baseline` they also make an image that they alone predict: the encoder sees only the residual from it, and the
decoder adds to it. Otherwise the latents learn what the parents determine, which costs them next to nothing (a
binary parent is worth 0.7 of some hundred nats), and do(parent) moves an X-ray a third of the way. The decoder is
kept apart from the prior and posterior networks, so that a counterfactual costs one lean decoder pass.

A parent that has severities reaches the image through them alone: they lay a cover over the film that all of the
above makes, posterior included, as if the parent were absent (`overlay.py`). With the config's `template` the
baseline is a regression, and the parents also move what the image shows (`template.py`), its mean and the pixel
noise alike.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise, ObservedImages
from causalcxr.mechanisms.likelihood import (
    bits_per_dimension,
    discretised_gaussian_log_prob,
    image_to_float,
    pixel_noise,
)
from causalcxr.mechanisms.overlay import EXPECTED_PRICE, Cover, Overlay
from causalcxr.mechanisms.severity import Causes, Severity, SeverityNoise
from causalcxr.mechanisms.template import Template
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = ["HVAE", "Elbo", "HVAEConfig", "HVAENoise"]


_BASELINE_SCALE = 0.1  # of the baseline's regression, in [0, 1] units: about what people differ by


@dataclass(frozen=True)
class HVAENoise(ImageNoise):
    """Exogenous noise of an image: latents `(B, C, h, w)` from coarse to fine, pixel noise `(B, C, H, W)`.

    `severity`: `(B, K)`, of the K severities that the image is made with; None without any. `features`: `(B, F)`,
    of the parents under which the pixel noise was abducted, so that it can be carried to others; None of fresh
    white noise, which needs no carrying.
    """

    latents: tuple[Tensor, ...]
    pixel: Tensor
    severity: Tensor | None = None
    features: Tensor | None = None

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
        severity, features = (None if part is None else function(part) for part in (self.severity, self.features))
        return HVAENoise(tuple(function(z) for z in self.latents), function(self.pixel), severity, features)


@dataclass(frozen=True)
class Elbo:
    """What one encoder pass and one decoder pass give of `image`, float `(B, C, H, W)` in [0, 1].

    `nll`, `kl`: `(B,)` in nats, the negative evidence lower bound is their sum. `loc`, `scale`: the decoder's mean
    and scale `(B, C, H, W)`. `latents`, `features`: as in HVAENoise. `auxiliary`: `(B,)` in nats, the auxiliary
    loss that training adds to the bound: the baseline's regression, and the price of what a cover hides.
    `draws`: where the noise of pixels at the ends of the range comes from. `beta`: the KL's weight in the training
    loss. `severity`: what the image was measured to have of it; None if the mechanism has no severities.
    """

    image: Tensor
    nll: Tensor
    kl: Tensor
    loc: Tensor
    scale: Tensor
    latents: tuple[Tensor, ...]
    auxiliary: Tensor
    features: Tensor
    draws: Draws
    beta: float = 1.0
    severity: SeverityNoise | None = None

    @cached_property
    def noise(self) -> HVAENoise:
        """The noise of the image, abducted in this pass."""
        pixel = pixel_noise(self.image.to(self.loc.dtype), self.loc, self.scale, self.draws)
        return HVAENoise(
            self.latents, pixel, None if self.severity is None else self.severity.noise, self.features
        )

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

    def __init__(
        self,
        variable: Variable,
        parents: Sequence[Variable],
        config: HVAEConfig,
        severity: Severity | None = None,
    ):
        super().__init__(variable, parents, config.size)
        check_config(config)
        self.config = config
        self.severity, self.overlay = severity, None
        self.embed = embedding_network(self.parent_encoder.width, config.embedding)
        if severity is not None:
            width = self.parent_encoder.width + severity.encoder.width
            self.overlay = Overlay(config, variable.channels, width)
        self.template = Template(self.parent_encoder.width, *self.event_shape[:2]) if config.template else None
        trained = config.baseline and not config.template
        self.baseline = Baseline(config, variable.channels) if trained else None
        self.encoder = Encoder(config, variable.channels)
        self.posterior = Posterior(config)
        self.prior = Prior(config)
        self.decoder = Decoder(config, variable.channels)
        self.to(memory_format=torch.channels_last)

    def prepare(self, rows: ObservedImages) -> None:
        """Solve for the template, if there is one. What has severities is held fixed."""
        if self.template is None:
            return

        def read() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for image, parents, evidence in rows():
                features = self.film_features(parents)
                others = [self.parent_encoder(parents) - features]
                if self.severity is not None and evidence is not None:
                    seen = self.severity.above_floor(evidence)
                    others += [seen, seen.square()]
                yield features, torch.cat(others, dim=1), image

        self.template.fit(read)

    def sample_noise(self, n: int, draws: Draws | None = None) -> HVAENoise:
        """n draws of latents and pixel noise. Runs the prior stream only; no parent is asked for."""
        draws, dtype = self._draws(draws), self._dtype
        latents, state = [], None
        for i, shape in enumerate(self.prior.shapes):
            (loc, log_scale), state = self.prior(i, state, latents[-1] if latents else None)
            noise = draws.normal(n, *shape, dtype=dtype)
            latents.append(loc + log_scale.exp() * noise)
        pixel = draws.normal(n, *self.event_shape, dtype=dtype)
        severity = draws.normal(n, len(self.severity.variables), dtype=dtype) if self.severity else None
        return HVAENoise(tuple(latents), pixel, severity)

    def causes(self, noise: ImageNoise, parents: Batch) -> Causes:
        """The parents, and with them the severities that follow from the noise."""
        assert isinstance(noise, HVAENoise)
        if self.severity is None or noise.severity is None:
            return Causes(parents)
        return Causes(parents, self.severity(noise.severity, parents))

    def make(self, noise: ImageNoise, causes: Causes) -> Tensor:
        """One pass of the decoder alone. Severities may be set, like any variable between."""
        assert isinstance(noise, HVAENoise)
        conditions = self._condition(causes)
        loc, scale, _ = self._decode(conditions, lambda layer, _: noise.latents[layer])
        pixel = noise.pixel
        if self.template is not None and noise.features is not None:
            pixel = self.template.carry(pixel, conditions.features - noise.features)
        return (loc + scale * pixel).clamp(0, 1)

    def film_features(self, parents: Batch) -> Tensor:
        """Features `(B, F)` of the parents as the film is made with them: those with severities are absent."""
        values = {p.name: parents[p.name] for p in self.parents}
        if self.severity is not None:
            values |= {name: torch.zeros_like(values[name]) for name in self.severity.of}
        return self.parent_encoder(values)

    def infer(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Elbo:
        """One encoder pass and one decoder pass: a draw of the latents, and a one-draw estimate of the bound."""
        return self.elbo(value, parents, draws)

    def training_loss(
        self,
        value: Tensor,
        parents: Batch,
        draws: Draws,
        evidence: Tensor | None = None,
        kl_share: Tensor | float = 1.0,
    ) -> Tensor:
        """In bits per dimension; in training mode with augmentation."""
        elbo = self.elbo(value, parents, draws, evidence, augment=self.training)
        return bits_per_dimension(elbo.nats(kl_share), self.event_shape)

    def importance_weighted_bound(
        self, value: Tensor, parents: Batch, k: int, draws: Draws | None = None
    ) -> Tensor:
        """`log mean_k p(x, z_k) / q(z_k | x)` over k draws of the latents, `(B,)` in nats (Burda et al. 2016).

        A lower bound of the log-mass in expectation, tighter the larger k is.
        """
        draws = self._draws(draws)
        passes = (self.elbo(value, parents, draws, sampled_kl=True) for _ in range(k))
        return torch.stack([one.bound for one in passes]).logsumexp(dim=0) - math.log(k)

    def elbo(
        self,
        value: Tensor,
        parents: Batch,
        draws: Draws | None = None,
        evidence: Tensor | None = None,
        augment: bool = False,
        sampled_kl: bool = False,
    ) -> Elbo:
        """Both terms of the evidence lower bound, and all that the pass computed on the way.

        `evidence` `(B, K)`: of the severities, if it was observed before. `augment`, for training: films without a
        finding are shown to the encoder under their neighbour's cover, if that has one. What is under it is known
        here, and so the encoder learns to infer it from what is visible. The bound holds for any posterior.
        `sampled_kl`: of the latents' KL its value at the draw, `log q(z | x) - log p(z)`, instead of its mean.

        Raises DataError: an image of another shape than the config's.
        """
        self.check_shape(value)
        draws, image = self._draws(draws), image_to_float(value, self._dtype)
        severity = self.severity.abduct(image, parents, draws, evidence) if self.severity else None
        conditions = self._condition(Causes(parents, severity.values if severity else None))
        film = image if self.template is None else self.template.unwarp(image, conditions.features)
        seen, seen_film, covered = conditions, film, None
        if augment and severity is not None:
            seen, seen_film, covered = self._augment(conditions, film, severity.values)
        features = self.encoder(seen.residual(seen_film).detach())
        latents: list[Tensor] = []
        kl = severity.kl if severity else torch.zeros(len(image), device=image.device, dtype=image.dtype)
        state = None

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

        loc, scale, cover = self._decode(conditions, draw)
        if covered is not None:  # the decoder's scale must not grow because the encoder saw less
            scale = torch.where(covered, scale.detach(), scale)
        nll = -discretised_gaussian_log_prob(image, loc, scale).sum(dim=(1, 2, 3))
        auxiliary = conditions.regression_loss(film)
        if self.severity is not None and conditions.cover is not None and cover is not None:
            auxiliary = auxiliary + self.severity.price * (cover.area + EXPECTED_PRICE * conditions.cover.area)
        return Elbo(
            image=image,
            nll=nll,
            kl=kl,
            loc=loc,
            scale=scale,
            latents=tuple(latents),
            auxiliary=auxiliary,
            features=conditions.features,
            draws=draws,
            beta=self.config.beta,
            severity=severity,
        )

    def _condition(self, causes: Causes) -> "_Conditions":
        """What the causes say of the image before a latent is drawn."""
        features = self.film_features(causes.parents)
        embedding, baseline = self.embed(features), None
        if self.template is not None:
            baseline = self.template(features)
        elif self.baseline is not None:
            baseline = self.baseline(embedding)
        return _Conditions(features, embedding, baseline, self._expected_cover(features, causes.severities))

    def _expected_cover(self, features: Tensor, severities: Tensor | None) -> Cover | None:
        """What lies over a film of these features, with these severities."""
        if self.severity is None or self.overlay is None or severities is None:
            return None
        joint = torch.cat([features, self.severity.encode(severities)], dim=-1)
        return self.overlay.expected(joint, self.severity.total(severities))

    def _augment(
        self, conditions: "_Conditions", film: Tensor, severities: Tensor
    ) -> tuple["_Conditions", Tensor, Tensor]:
        """Films that nothing lies over, under what the next one in the batch shows where it has its cover.

        Returns the conditions and films that the encoder sees, and the rows that are covered `(B, 1, 1, 1)`.
        """
        assert conditions.cover is not None
        neighbour = (torch.arange(len(film), device=film.device) ^ 1).clamp_max(len(film) - 1)
        has_cover = conditions.cover.amount > 0
        rows = ~has_cover & has_cover[neighbour]
        borrowed = torch.where(rows.flatten()[:, None], severities[neighbour], severities)
        cover = self._expected_cover(conditions.features, borrowed)
        assert cover is not None
        seen_film = torch.where(rows, cover.transplant(film[neighbour], film), film)
        return replace(conditions, cover=cover), seen_film, rows

    def _decode(
        self, conditions: "_Conditions", latent: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Cover | None]:
        """Mean and scale of the image `(B, C, H, W)`, and what of it is laid over the film."""
        loc, scale, hidden = self.decoder(conditions.embedding, conditions.baseline, latent)
        cover, expected = None, conditions.cover
        if self.overlay is not None and expected is not None:
            cover, cover_scale = self.overlay(expected, hidden)
            loc, scale = (expected.stop_gradient(cover.stop_gradient(part)) for part in (loc, scale))
            loc, scale = cover.over(loc), torch.lerp(scale, cover_scale, cover.opacity)
        if self.template is not None:
            loc, scale = self.template.warp(torch.cat([loc, scale], dim=1), conditions.features).chunk(2, dim=1)
        return loc, scale, cover


@dataclass(frozen=True)
class _Conditions:
    """What is known before a latent is drawn: features, embedding and baseline of the film; what covers it."""

    features: Tensor
    embedding: Tensor
    baseline: Tensor | None
    cover: Cover | None

    @cached_property
    def image(self) -> Tensor | None:
        """The baseline with the cover over it."""
        return self.baseline if self.baseline is None or self.cover is None else self.cover.over(self.baseline)

    def residual(self, image: Tensor) -> Tensor:
        """The encoder's input: what the causes alone do not predict, where it is visible."""
        predicted = self.image
        residual = image - (0.5 if predicted is None else predicted)
        return residual if self.cover is None else self.cover.mask(residual)

    def regression_loss(self, image: Tensor) -> Tensor:
        """Half the squared distance of what is predicted to the image, `(B,)`; 0 without a baseline."""
        predicted = self.image
        residual = torch.zeros_like(image) if predicted is None else image - predicted
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
