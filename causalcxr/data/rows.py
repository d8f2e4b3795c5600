"""Rows to train on, whatever they hold: something with a length that gives a batch for any row numbers."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

__all__ = ["Indices", "Rows", "Table"]

Indices = Tensor | np.ndarray | Sequence[int]


class Rows(Protocol):
    """Rows by number. A batch is a Batch, or a NamedTuple of such, as the objective that trains on it expects."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, /) -> Any:
        """The rows with these numbers, in the order given."""
        ...

    def subset(self, indices: Indices, /) -> "Rows":
        """These rows as rows of their own, numbered from 0."""
        ...


class Table:
    """Rows held in memory: tensors `(N, ...)`, or a dict or NamedTuple of such."""

    def __init__(self, values: Any):
        self.values = values
        lengths: list[int] = []
        apply_to_collection(values, Tensor, lambda tensor: lengths.append(len(tensor)))
        assert lengths and len(set(lengths)) == 1, f"rows of different numbers: {lengths}"
        self._n = lengths[0]

    def __len__(self) -> int:
        return self._n

    def batch(self, indices: Indices) -> Any:
        """The values of these rows, in the same structure."""
        chosen = np.asarray(indices)
        return apply_to_collection(self.values, Tensor, lambda tensor: tensor[chosen])

    def subset(self, indices: Indices) -> "Table":
        return Table(self.batch(indices))
