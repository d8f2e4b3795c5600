"""What the simulator says of a patient: the exact counterfactual, for each of the effects."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from causalcxr.data.cohort import Split
from causalcxr.metrics.truth import Truth
from causalcxr.values import Batch

__all__ = ["Exact", "Simulated"]

REMEMBERED = 256  # factual images


class Exact(NamedTuple):
    """The image `(1, H, W)` in [0, 1], its difference from the exact factual image, and the attributes `(1,)`."""

    image: Tensor
    effect: Tensor
    attributes: Batch


class Simulated:
    """Patients of a simulated cohort, by their number in a split."""

    def __init__(self, truth: Truth, split: Split):
        self._truth, self._split = truth, split
        self._factual = lru_cache(REMEMBERED)(lambda row: self._image(row, {}, "direct"))

    def answer(self, row: int, do: Mapping[str, Any], effect: str) -> Exact:
        """The patient, had `do` been so; the attributes are those that the image is made with."""
        image, subject = self._image(row, do, effect), self._subject(row)
        factual, followed = self._truth.attributes(subject), self._truth.attributes(subject, do)
        if effect == "direct":
            followed = factual | {name: followed[name] for name in do}
        elif effect == "indirect":
            followed = followed | {name: factual[name] for name in do}
        return Exact(image, image - self._factual(row), followed)

    def _image(self, row: int, do: Mapping[str, Any], effect: str) -> Tensor:
        return self._truth.images(self._subject(row), do, effect)[0]

    def _subject(self, row: int) -> Tensor:
        return torch.tensor([int(self._split.ids[row])])
