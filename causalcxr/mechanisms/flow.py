"""The image's mechanism: a conditional flow in what a template leaves, in its principal components or its pixels.

    noise u = (x_s, e)         image := compose(x_1, pa) + e      x_1 follows from x_s by dx/dt = v(x, t, pa)

The flow carries standard normal noise at time 0 to the coordinates of an image at time 1, along straight lines
on average (flow matching: Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003). Abduction
solves the equation backwards from the image under the factual parents, to a time `t_end` at which there is
still something of the image in it; prediction solves it forwards again under others. Nothing is drawn, unless
abduction begins below time 1.
What the space and the solver lose is the residual `e`, which is kept, so a null intervention gives the image back.

`compose` adds what the coordinates make to the image that the parents alone predict, and moves the sum to where
the parents have it (`template.py`). The residual is carried along with them.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.mechanisms.flow_network import Velocity
from causalcxr.mechanisms.flow_path import PATHS, SOLVERS, integrate, straight_time, times_between
from causalcxr.mechanisms.flow_unet import UNetVelocity
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise, ObservedImages
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.mechanisms.pixels import Pixels
from causalcxr.mechanisms.principal import PrincipalComponents
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.support.bounds import bounded, bounded_list, choice
from causalcxr.support.errors import ConfigError
from causalcxr.values import Batch

__all__ = ["Flow", "FlowConfig", "FlowInferred", "FlowNoise"]

_STRATA = 8  # of the time from noise to image: the loss of an inferred image is taken in each
_SPACES = ("components", "pixels")


@dataclass
class FlowConfig:
    """Sizes and shape of the flow.

    `space`: what it lives in, `components` (principal ones, for images that lie on top of each other) or `pixels`.
    `components`: how many. `whiten`: how far their spreads are evened out, 0 to 1. `width`: of the network, in
    components. `widths`: channels of the U-Net by level, in pixels. `fold`: side of the pixel block that is folded
    into channels. `blocks`: of either network. `embedding`: width of that of time and parents. `dropout`: share of
    hidden units. `path`: `straight`, or `diffusion`. `solver`: `heun`, or `euler`; on the diffusion path that is
    DDIM. `steps`: of the solver, each way. `t_end`: the time at which abduction stops; 0 is noise, 1 the image
    itself. `t_start`: the time at which it begins. Below 1, a little noise is drawn and mixed into the image, for
    pixels that are the same in every image have no noise of their own. `unconditional`: share of training rows
    from which the parents that are not the template's are hidden. `guidance`: scale of classifier-free guidance in
    these parents, both ways: by how much the velocity under them is taken instead of that without (1: just it).
    `checkpoint`: recompute the U-Net's activations in the backward pass, for large images on a GPU.
    """

    space: str = choice("components", _SPACES)
    components: int = bounded(256, least=1)
    whiten: float = bounded(0.25, least=0, most=1)
    width: int = bounded(512, least=1)
    widths: list[int] = bounded_list([32, 96], least=1)
    fold: int = bounded(2, least=1)
    blocks: int = bounded(4, least=1)
    embedding: int = bounded(128, least=1)
    dropout: float = bounded(0.1, least=0, below=1)
    path: str = choice("straight", PATHS)
    solver: str = choice("heun", SOLVERS)
    steps: int = bounded(3, least=1)
    t_end: float = bounded(0.1, least=0, below=1)
    t_start: float = bounded(1.0, above=0, most=1)
    unconditional: float = bounded(0.0, least=0, below=1)
    guidance: float = bounded(1.0, least=0)
    checkpoint: bool = False


@dataclass(frozen=True)
class FlowNoise(ImageNoise):
    """`latent` `(B, ...)`: the flow at the time `start`. `residual` `(B, C, H, W)`: what is added to the image.

    It is in units of the gain. `features` `(B, F)`: of the parents under which it was abducted; None of a fresh
    one. `level` `(B, 1, 1, 1)`: the template's `own_level` of the image.
    """

    latent: Tensor
    residual: Tensor
    start: float
    features: Tensor | None = None
    level: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latent)

    def repeat(self, k: int) -> "FlowNoise":
        return self._map(lambda noise: noise.repeat(k, *[1] * (noise.ndim - 1)))

    def select(self, rows: Tensor | slice) -> "FlowNoise":
        return self._map(lambda noise: noise[rows])

    def with_pixel_noise(self, mode: str, draws: Draws) -> "FlowNoise":
        """The same latent with its residual or without."""
        return replace(self, residual=torch.zeros_like(self.residual)) if mode == "off" else self

    def _map(self, function: Callable[[Tensor], Tensor]) -> "FlowNoise":
        features, level = (None if of is None else function(of) for of in (self.features, self.level))
        return FlowNoise(function(self.latent), function(self.residual), self.start, features, level)


@dataclass(frozen=True)
class FlowInferred:
    """What one pass gives of `image`, float `(B, C, H, W)` in [0, 1]; each part is worked out when asked for.

    `coordinates` `(B, ...)`: the flow at time 1. `features` `(B, F)`: of the parents.
    """

    flow: "Flow"
    image: Tensor
    coordinates: Tensor
    features: Tensor
    draws: Draws
    bound = None

    @cached_property
    def noise(self) -> FlowNoise:
        start, end, x = self.flow.config.t_start, self.flow.config.t_end, self.coordinates
        if start < 1:
            x = torch.lerp(self.draws.normal(*x.shape, dtype=x.dtype), x, start)
        latent = self.flow.solve(x, self.features, start, end)
        found = FlowNoise(latent, torch.zeros_like(self.image), end, self.features)
        gain = self.flow.template.gain(self.features)
        residual = self.image / gain - self.flow.compose(found, self.features)
        return replace(found, residual=residual, level=self.flow.template.own_level(self.image, gain))

    @cached_property
    def loss(self) -> Tensor:
        return self.flow.matching_loss(self.coordinates, self.features, self.draws, strata=_STRATA)

    @property
    def mean(self) -> Tensor:
        noise = self.noise
        return (self.image - self.flow.template.gain(self.features) * noise.residual).clamp(0, 1)

    def redrawn(self, draws: Draws) -> Tensor:
        return self.mean


class Flow(ImageMechanism):
    """`image := compose(x_1, parents) + e`. Values are uint8 or float in [0, 1], `(B, C, H, W)`. No likelihood."""

    pixel_noise = ("kept", "off")
    loss_unit = "squared error of the velocity"
    config: FlowConfig
    guided: Tensor

    def __init__(
        self,
        variable: Variable,
        parents: Sequence[Variable],
        config: FlowConfig | None = None,
        size: int = 64,
        template: TemplateConfig | None = None,
    ):
        config = config or FlowConfig()
        super().__init__(variable, parents, config, size, template)
        if config.t_end >= config.t_start:
            raise ConfigError(
                f"model.flow.t_end is {config.t_end:g}; expected less than model.flow.t_start, {config.t_start:g}"
            )
        if config.guidance != 1 and not config.unconditional:
            raise ConfigError(
                f"model.flow.guidance is {config.guidance:g} and model.flow.unconditional 0; expected 1, or a "
                "network from which parents were hidden in training, as with model.flow.unconditional=0.1"
            )
        guided = ~self.parent_encoder.columns_of(self.template.of)
        self.register_buffer("guided", F.pad(guided, (0, 1), value=True), persistent=False)
        build = _build_components if config.space == "components" else _build_pixels
        self.space, self.velocity = build(config, self.event_shape, self.parent_encoder.width + 1)

    def solve_space(self, rows: ObservedImages) -> None:
        """Fit the space to what the template leaves."""

        def residuals() -> Iterable[Tensor]:
            return (self._residual(image, self.parent_encoder(parents)) for image, parents in rows())

        self.space.fit(residuals)

    def sample_noise(self, n: int, draws: Draws | None = None) -> FlowNoise:
        """Standard normal noise at time 0, and a residual with the spread of what the space loses."""
        draws = self._draws(draws)
        latent = draws.normal(n, *self.space.coordinates, dtype=self._dtype)
        residual = draws.normal(n, *self.event_shape, dtype=self._dtype)
        return FlowNoise(latent, residual * self.space.lost, 0.0)

    def forward(self, noise: ImageNoise, parents: Batch) -> Tensor:
        assert isinstance(noise, FlowNoise)
        features, residual = self.parent_encoder(parents), noise.residual
        if noise.features is not None:
            residual = self.template.carry(residual, noise.features, features)
        gain = self.template.gain(features)
        made = gain * (self.compose(noise, features) + residual)
        return self.template.at_level(made, noise.level, gain).clamp(0, 1)

    @property
    def draws_noise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether abduction is a draw."""
        return self.config.t_start < 1

    def replica(self) -> "Flow":
        """The same flow, solved in one step more: nothing is drawn."""
        other = copy(self)  # shares all weights
        other.config = replace(self.config, steps=self.config.steps + 1)
        return other

    def infer(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> FlowInferred:
        self.check_shape(value)
        image, features = image_to_float(value, self._dtype), self.parent_encoder(parents)
        coordinates = self.space.encode(self._residual(image, features))
        return FlowInferred(self, image, coordinates, features, self._draws(draws))

    def training_loss(
        self,
        value: Tensor,
        parents: Batch,
        draws: Draws,
        kl_share: Tensor | float = 1.0,
    ) -> Tensor:
        """Squared error of the velocity at one time a row, `(B,)`, by coordinate."""
        found = self.infer(value, parents, draws)
        return self.matching_loss(found.coordinates, found.features, draws, dropout=self.training)

    def matching_loss(
        self, coordinates: Tensor, features: Tensor, draws: Draws, strata: int = 1, dropout: bool = False
    ) -> Tensor:
        """`|v(x_t, t) - (x_1 - x_0)|^2` `(B,)` by coordinate, `x_0` being noise; at a time in each stratum."""
        drawn = [
            (draws.uniform(1, len(coordinates), dtype=coordinates.dtype)[0], draws.normal(*coordinates.shape))
            for _ in range(strata)
        ]
        t = torch.cat([straight_time((i + u) / strata, self.config.path) for i, (u, _) in enumerate(drawn)])
        noise = torch.cat([e for _, e in drawn]).to(coordinates.dtype)
        images = coordinates.repeat(strata, *[1] * (noise.ndim - 1))
        between = torch.lerp(noise, images, t.view(-1, *[1] * (noise.ndim - 1)))
        seen = self._seen(features)
        if dropout and self.config.unconditional:
            hidden = self.config.unconditional > draws.uniform(1, len(seen)).T
            seen = seen.masked_fill(hidden & self.guided, 0)
        velocity = self.velocity(between, t, seen.repeat(strata, 1), draws if dropout else None)
        error = (velocity - (images - noise)).square().flatten(1).mean(dim=1) * self.velocity.weight(t)
        return error.view(strata, -1).mean(dim=0)

    def solve(self, x: Tensor, features: Tensor, start: float, end: float) -> Tensor:
        """Carry `x` `(B, ...)` from one time to another under parents with these features."""
        config = self.config
        times = times_between(start, end, config.steps, config.path)
        return integrate(self._velocity_under(features), x, times, config.solver)

    def compose(self, noise: FlowNoise, features: Tensor) -> Tensor:
        """The image `(B, C, H, W)` without its residual and gain, under parents with these features."""
        start = self.config.t_start
        end = self.solve(noise.latent, features, noise.start, start)
        if start < 1:  # what is left of the noise is taken out in one step
            t = torch.full((len(end),), start, device=end.device, dtype=end.dtype)
            end = end + (1 - start) * self._velocity_under(features)(end, t)
        return self.template.warp(self.template(features) + self.space.decode(end), features)

    def _velocity_under(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`v(x, t)` under parents with these features, with guidance (Ho and Salimans 2022, arXiv:2207.12598)."""
        seen, guidance = self._seen(features), self.config.guidance
        if guidance == 1:
            return lambda x, t: self.velocity(x, t, seen)
        both = torch.cat([seen, seen.masked_fill(self.guided, 0)])

        def guided(x: Tensor, t: Tensor) -> Tensor:
            under, without = self.velocity(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            return torch.lerp(without, under, guidance)

        return guided

    def _seen(self, features: Tensor) -> Tensor:
        """What the network sees of the parents `(B, F + 1)`: the last number says that it sees all of them."""
        return F.pad(self.template.without_gain(features), (0, 1), value=1.0)

    def _residual(self, image: Tensor, features: Tensor) -> Tensor:
        """What the template leaves of an image, where the average person has it."""
        film = image / self.template.gain(features)
        return self.template.unwarp(film, features) - self.template(features)


def _build_components(
    config: FlowConfig, shape: torch.Size, features: int
) -> tuple[PrincipalComponents, Velocity]:
    if config.components > shape.numel():
        raise ConfigError(
            f"model.flow.components is {config.components}; expected at most {shape.numel()}, the pixels"
        )
    sizes = config.width, config.blocks, config.embedding, config.dropout
    return PrincipalComponents(config.components, shape, config.whiten), Velocity(
        config.components, features, *sizes
    )


def _build_pixels(config: FlowConfig, shape: torch.Size, features: int) -> tuple[Pixels, UNetVelocity]:
    coarsest = config.fold * 2 ** (len(config.widths) - 1)
    if shape[-1] % coarsest:
        raise ConfigError(
            f"model.flow.widths and fold need images whose side is a multiple of {coarsest}, got {shape[-1]}"
        )
    sizes = config.widths, config.blocks, config.embedding, config.dropout, config.fold, config.checkpoint
    space = Pixels(shape)
    return space, UNetVelocity(space, features, *sizes)
