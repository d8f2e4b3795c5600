"""What every image mechanism offers. The rest of the code asks for nothing else of one.

An image mechanism **infers**: from images and their parents, in one pass, the noise, the training loss, a bound of
the likelihood if it has one, and the image that the noise determines. Called, it makes images from noise and
parents.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import Mechanism, ParentEncoder
from causalcxr.mechanisms.template import Template, TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.support.errors import DataError, GraphError
from causalcxr.values import Batch

__all__ = ["ImageMechanism", "ImageNoise", "Inferred", "ObservedImages"]

# Goes over training rows: images, float in [0, 1], and their parents.
ObservedImages = Callable[[], Iterable[tuple[Tensor, Batch]]]


class ImageNoise(ABC):
    """Exogenous noise of a batch of images; `len` counts the rows."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def repeat(self, k: int) -> "ImageNoise":
        """The whole batch k times over: `k * B` rows, row i of copy j at `j * B + i`."""

    @abstractmethod
    def select(self, rows: Tensor | slice) -> "ImageNoise":
        """The rows of a mask, an index or a slice."""

    def with_pixel_noise(self, mode: str, draws: Draws) -> "ImageNoise":
        """The same noise with that of single pixels `kept`, `off` or `redrawn`: one of the mechanism's modes."""
        assert mode == "kept", mode
        return self


class Inferred(Protocol):
    """What one pass gives of images: a dataclass with these fields or properties."""

    @property
    def image(self) -> Tensor:
        """The images, float `(B, C, H, W)` in [0, 1]."""
        ...

    @property
    def noise(self) -> ImageNoise:
        """Their noise, abducted in this pass."""
        ...

    @property
    def loss(self) -> Tensor:
        """What training minimises, `(B,)`, by dimension: of a likelihood, in bits."""
        ...

    @property
    def bound(self) -> Tensor | None:
        """A lower bound of the log-mass, `(B,)` in nats; None of a mechanism without a likelihood."""
        ...

    @property
    def mean(self) -> Tensor:
        """The images `(B, C, H, W)` in [0, 1] that the noise makes without that of single pixels."""
        ...

    def redrawn(self, draws: Draws) -> Tensor:
        """The mean with fresh noise of single pixels, if the mechanism has any."""
        ...


class ImageMechanism(Mechanism):
    """The structural equation of an image `(C, H, W)`: uint8 or float in [0, 1] in, float out.

    `event_shape`: `(C, H, W)`. `template`: what its parents alone predict (`template.py`). `pixel_noise`: what can
    be done with the noise of single pixels, where it is kept apart from the rest. `draws_noise`: whether abduction
    is a draw, so that another differs. `loss_unit`: of its training loss by dimension.

    A subclass takes its section of the configuration after the parents.
    """

    pixel_noise: tuple[str, ...] = ("kept",)
    draws_noise = True
    loss_unit = "bits / dim"

    def __init__(
        self,
        variable: Variable,
        parents: Sequence[Variable],
        config: Any = None,
        size: int = 64,
        template: TemplateConfig | None = None,
    ):
        super().__init__(variable, parents)
        self.config = config
        self.event_shape = torch.Size((variable.channels, size, size))
        self.parent_encoder = ParentEncoder(parents)
        self.template = Template(template or TemplateConfig(), self.parent_encoder, variable.channels, size)

    def calibrate(self, batch: Batch) -> None:
        """Take the parents' scaling from the training split."""
        self.parent_encoder.calibrate(batch)

    def prepare(self, rows: ObservedImages) -> None:
        """Solve for what needs no gradient, on training rows, before the image stage."""
        self.solve_template(rows)
        self.solve_space(rows)

    def solve_space(self, rows: ObservedImages) -> None:
        """What else is solved for, on the template; the default has nothing."""

    def solve_template(self, rows: ObservedImages) -> None:
        """What the parents alone predict."""

        def read() -> Iterator[tuple[Tensor, Tensor]]:
            for image, parents in rows():
                features = self.parent_encoder(parents)
                yield self.template.without_gain(features), image / self.template.gain(features)

        self.template.fit(read)

    def infer(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Inferred:
        """One pass over factual images. Raises DataError: images of another shape."""
        raise NotImplementedError

    def training_loss(
        self,
        value: Tensor,
        parents: Batch,
        draws: Draws,
        kl_share: Tensor | float = 1.0,
    ) -> Tensor:
        """What the image stage minimises, `(B,)`, by dimension. `kl_share`: of a KL term's weight, if any."""
        return self.infer(value, parents, draws).loss

    def forward(self, noise: ImageNoise, parents: Batch) -> Tensor:
        """The structural equation: float `(B, C, H, W)` in [0, 1]."""
        raise NotImplementedError

    def no_noise(self) -> ImageNoise:
        """The noise of no images at all."""
        return self.sample_noise(1, Draws(0, self.parent_encoder.loc.device)).select(slice(0))

    def abduct(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> ImageNoise:
        """The noise of images. `forward` on it and the same parents gives the images back."""
        return self.infer(value, parents, draws).noise

    def replica(self) -> "ImageMechanism":
        """The mechanism for another abduction of the same images: itself, where that is another draw.

        What the two differ by is what abduction leaves open.
        """
        return self

    def log_prob(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        """A **lower bound** of the log-mass, `(B,)` in nats. Raises GraphError: no likelihood."""
        bound = self.infer(value, parents, draws).bound
        if bound is None:
            raise self._has_no_likelihood()
        return bound

    def importance_weighted_bound(
        self, value: Tensor, parents: Batch, k: int, draws: Draws | None = None
    ) -> Tensor:
        """A tighter bound of the log-mass from k draws, `(B,)` in nats. Raises GraphError: there is none."""
        raise self._has_no_likelihood()

    def check_shape(self, value: Tensor) -> None:
        """Raises DataError: images of another shape."""
        if value.shape[1:] != self.event_shape:
            got, expected = "x".join(map(str, value.shape[1:])), "x".join(map(str, self.event_shape))
            raise DataError(f"'{self.variable.name}': images are {got}, the model takes {expected}; resize them")

    def _has_no_likelihood(self) -> GraphError:
        return GraphError(f"'{self.variable.name}': the mechanism has no likelihood; leave the image out by do=")

    def _draws(self, draws: Draws | None) -> Draws:
        return draws or Draws(device=self.parent_encoder.loc.device)

    @property
    def _dtype(self) -> torch.dtype:
        return self.parent_encoder.loc.dtype
