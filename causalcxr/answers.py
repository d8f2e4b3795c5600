"""One patient's image and attributes in; the counterfactual, expected and drawn, out. No file is touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from causalcxr.mechanisms.image import ImageNoise
from causalcxr.randomness import Draws
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.support.errors import ConfigError, DataError, nearest
from causalcxr.values import Batch, decode

__all__ = ["Answer", "abduct_patient", "answer", "answer_abducted"]


@dataclass(frozen=True)
class Answer:
    """What a patient would have been under an intervention.

    `factual`: the patient as a batch of one row. `drawn`: the counterfactual, a row for every draw of what the
    image leaves open, such as the side of an effusion that isn't there. Images are float `(B, C, H, W)` in [0, 1].
    """

    scm: StructuralCausalModel
    factual: Batch
    drawn: Batch

    def __len__(self) -> int:
        return len(self._images)

    @property
    def image(self) -> Tensor:
        """The expected counterfactual `(C, H, W)`: the mean of the draws."""
        return self._images.mean(dim=0)

    @property
    def change(self) -> Tensor:
        """The expected counterfactual minus the factual image `(C, H, W)`, in grey levels (0 to 255)."""
        return 255 * self.image - 255 * self.factual[self._name][0]

    @property
    def spread(self) -> float:
        """How far the draws are apart: root of the mean variance of a pixel, grey levels; 0 of a single draw."""
        return float((255 * self._images).var(dim=0).mean().sqrt()) if len(self) > 1 else 0.0

    @property
    def attributes(self) -> dict[str, Any]:
        """Of all draws: a label's most common value, a number's mean."""
        found = {}
        for name in self.scm.graph.attributes:
            variable, values = self.scm.graph[name], self.drawn[name]
            value = values.mode().values if variable.is_discrete else values.mean()
            found[name] = decode(variable, value[None])[0]
        return found

    def row(self, i: int | None = None) -> dict[str, Any]:
        """The attributes of draw `i`, or of the factual patient, as labels and numbers."""
        batch = self.factual if i is None else {name: self.drawn[name][i : i + 1] for name in self.drawn}
        graph = self.scm.graph
        return {name: decode(graph[name], batch[name][:1])[0] for name in graph.attributes}

    @property
    def _name(self) -> str:
        assert self.scm.graph.image is not None
        return self.scm.graph.image

    @property
    def _images(self) -> Tensor:
        return self.drawn[self._name]


def answer(
    scm: StructuralCausalModel,
    image: Tensor,
    given: Mapping[str, Any],
    do: Mapping[str, Any],
    effect: str = "total",
    draws: int = 1,
    seed: int | None = None,
    pixel_noise: str = "kept",
) -> Answer:
    """Answer "this patient, had `do` been the case".

    `image`: `(C, H, W)`, uint8 or float in [0, 1], of the model's size. `given` and `do`: natural units or labels,
    `given` naming every attribute of the graph. The patient is abducted `draws` times, in one pass. `pixel_noise`:
    one of the image mechanism's modes, for example without that of single pixels ("off").
    Raises ConfigError: fewer than one draw, or no such mode. Raises DataError: a graph without an image. Raises
    GraphError: what `scm.counterfactual` refuses.
    """
    return answer_abducted(scm, abduct_patient(scm, image, given, draws, seed, pixel_noise), do, effect)


def abduct_patient(
    scm: StructuralCausalModel,
    image: Tensor,
    given: Mapping[str, Any],
    draws: int = 1,
    seed: int | None = None,
    pixel_noise: str = "kept",
) -> Abduction:
    """One patient abducted `draws` times, a row each; arguments and errors are those of `answer`.

    Where the noise of single pixels is not kept, the factual images are those that are left without it, so that an
    answer differs from them by the intervention alone.
    """
    if draws < 1:
        raise ConfigError(f"draws: expected a whole number of at least 1, got {draws}")
    if scm.graph.image is None:
        raise DataError(f"graph '{scm.graph.name}' has no image, so a picture can't be asked for")
    if pixel_noise not in scm.image_mechanism.pixel_noise:
        raise ConfigError(
            f"no pixel noise '{pixel_noise}'; {nearest(pixel_noise, scm.image_mechanism.pixel_noise)}"
        )
    name = scm.graph.image
    found = scm.abduct({**given, name: image.expand(draws, -1, -1, -1)}, seed)
    if pixel_noise == scm.image_mechanism.pixel_noise[0]:
        return found
    noise = found.noise[name]
    assert isinstance(noise, ImageNoise)
    changed = noise.with_pixel_noise(pixel_noise, Draws(seed, scm.device))
    factual = {**found.factual, name: scm.image_mechanism(changed, found.factual)}
    return Abduction({**found.noise, name: changed}, factual)


def answer_abducted(
    scm: StructuralCausalModel, abduction: Abduction, do: Mapping[str, Any], effect: str = "total"
) -> Answer:
    """The answer from what `abduct_patient` gave: one pass of the decoder, for any number of questions."""
    drawn = scm.counterfactual(abduction, do=do, effect=effect)
    factual, name = {name: value[:1] for name, value in abduction.factual.items()}, scm.graph.image
    assert name is not None
    images = abduction.factual[name]
    if not torch.equal(images, images[:1].expand_as(images)):
        factual[name] = images.mean(dim=0, keepdim=True)  # without the noise of pixels they differ
    return Answer(scm, factual, drawn)
