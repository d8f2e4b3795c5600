"""One patient's image and attributes in; the counterfactual, expected and drawn, out. No file is touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, DataError
from causalcxr.values import Batch, decode

__all__ = ["Answer", "answer"]


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
) -> Answer:
    """Answer "this patient, had `do` been the case".

    `image`: `(C, H, W)`, uint8 or float in [0, 1], of the model's size. `given` and `do`: natural units or labels,
    `given` naming every attribute of the graph. The patient is abducted `draws` times, in one pass.
    Raises ConfigError: fewer than one draw. Raises DataError: a graph without an image. Raises GraphError: what
    `scm.counterfactual` refuses.
    """
    if draws < 1:
        raise ConfigError(f"draws: expected a whole number of at least 1, got {draws}")
    if scm.graph.image is None:
        raise DataError(f"graph '{scm.graph.name}' has no image, so a picture can't be asked for")
    batch = {**given, scm.graph.image: image.expand(draws, -1, -1, -1)}
    abduction = scm.abduct(batch, seed)
    drawn = scm.counterfactual(abduction, do=do, effect=effect)
    return Answer(scm, {name: value[:1] for name, value in abduction.factual.items()}, drawn)
