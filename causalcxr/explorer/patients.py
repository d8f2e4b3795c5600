"""The patients that the page shows, and how many like a given one there are in the training data."""

from typing import Any

import torch
from torch import Tensor

from causalcxr.data.cohort import Cohort
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError
from causalcxr.values import Batch

__all__ = ["FEW", "Patients", "near_rows", "nearness_text"]

FEW = 10  # training images near a combination of attributes; with fewer the page warns
NEAR = 0.05  # of a number's range, on either side


class Patients:
    """The images of one split, numbered from 0, one row a film; a patient may have several."""

    def __init__(self, cohort: Cohort, split: str = "test"):
        """Raises DataError: nobody is in the split, or the cohort has no images."""
        if cohort.images is None:
            raise DataError(f"cohort '{cohort.folder}' has no images to show")
        self.cohort, self.split, self.graph = cohort, cohort.split(split), cohort.graph
        if not len(self.split):
            raise DataError(f"the split '{split}' of cohort '{cohort.folder}' has no patients to show")
        self._train = cohort.split("train").attributes

    def __len__(self) -> int:
        return len(self.split)

    def film(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The image of a row, uint8 `(C, H, W)`, and its attributes, `(1,)` each."""
        batch = self.split.batch([row])
        assert self.graph.image is not None
        return batch.pop(self.graph.image)[0], batch

    def table(self) -> dict[str, Any]:
        """Who there is to choose from: `id`, `patient`, and `values` by attribute, labels as indices."""
        values = {name: column.tolist() for name, column in self.split.attributes.items()}
        return {"id": self.split.ids.tolist(), "patient": self.split.patients.tolist(), "values": values}

    def about(self, row: int | None) -> dict[str, Any] | None:
        """Who a row is, for whoever keeps an answer; None of an uploaded film."""
        if row is None:
            return None
        return {"split": self.split.name, "id": int(self.split.ids[row]), "patient": str(self.split.patients[row])}

    def near(self, batch: Batch) -> int:
        """Training images with the labels of the first row of a batch, and numbers near its numbers."""
        return int(near_rows(self.graph, self._train, batch).sum())


def near_rows(graph: Graph, train: Batch, batch: Batch) -> Tensor:
    """Which rows `(N,)` have the labels of the first row of a batch, and numbers within NEAR of a range."""
    alike = torch.ones(len(train[graph.attributes[0]]), dtype=torch.bool)
    for name in graph.attributes:
        value = batch[name][0].cpu()
        if graph[name].is_discrete:
            alike &= train[name] == value
        else:
            low, high = graph[name].bounds
            alike &= (train[name] - value).abs() <= NEAR * (high - low)
    return alike


def nearness_text(graph: Graph, count: int) -> str:
    """A warning in one sentence, or "" where there are enough."""
    if count >= FEW:
        return ""
    numbers = [graph[name] for name in graph.attributes if not graph[name].is_discrete]
    near = [f"{v.name} within {NEAR * (v.bounds[1] - v.bounds[0]):.3g} {v.unit}".rstrip() for v in numbers]
    alike = ", ".join(["the same labels", *near])
    found = f"{count or 'none'} {'are' if count > 1 else 'is'}"
    return f"Extrapolation: of the training images {found} like this ({alike})."
