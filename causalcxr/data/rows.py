"""Rows to train on, whatever they hold: something with a length that gives a batch for any row numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from causalcxr.values import Batch

__all__ = ["Indices", "Observed", "ObservedRows", "Rows", "Table"]

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


class Observed(NamedTuple):
    """A batch, and the evidence `(B, K)` of its severities, which was observed once for all rows."""

    batch: Batch
    evidence: Tensor


class ObservedRows:
    """The rows of a split with their evidence `(N, K)`."""

    def __init__(self, rows: Rows, evidence: Tensor):
        assert len(rows) == len(evidence)
        self.rows, self.evidence = rows, evidence

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Indices) -> Observed:
        """The batch of these rows with its evidence."""
        return Observed(self.rows.batch(indices), self.evidence[np.asarray(indices)])

    def subset(self, indices: Indices) -> "ObservedRows":
        return ObservedRows(self.rows.subset(indices), self.evidence[np.asarray(indices)])
