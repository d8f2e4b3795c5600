"""A cohort in numbers, from its manifest: rows and patients by split, labels and quantiles by attribute."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from causalcxr.data.table import SPLITS
from causalcxr.graph import Graph, Variable

__all__ = ["QUANTILES", "BySplit", "label_counts", "quantiles", "spread"]

QUANTILES = {"lowest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "highest": 1.0}
GOLDEN = 0.618  # its multiples spread evenly over [0, 1)


class BySplit:
    """The columns of a manifest in train, val, test and all, each looked up once.

    `parts["age"]["val"]` is an array `(N,)`: numbers as float64, else text.
    """

    def __init__(self, manifest: pd.DataFrame):
        self._manifest = manifest
        self._columns: dict[str, dict[str, np.ndarray]] = {}
        splits = manifest["split"].to_numpy(dtype=str)
        self._rows = {split: np.flatnonzero(splits == split) for split in SPLITS}

    def __getitem__(self, column: str) -> dict[str, np.ndarray]:
        if column not in self._columns:
            values = self._manifest[column].to_numpy()
            self._columns[column] = self._part(values.astype(np.float64 if values.dtype.kind == "f" else str))
        return self._columns[column]

    def __len__(self) -> int:
        return len(self._manifest)

    @cached_property
    def patients(self) -> dict[str, np.ndarray]:
        """The patient of every row, as a number."""
        return self._part(pd.factorize(self._manifest["patient_id"])[0])

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Rows and patients of train, val, test and all."""
        return {split: (len(people), len(np.unique(people))) for split, people in self.patients.items()}

    def _part(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {split: values[rows] for split, rows in self._rows.items()} | {"all": values}


def label_counts(variable: Variable, parts: BySplit) -> dict[str, dict[str, int]]:
    """Rows of a discrete attribute: by label, in class order, then by train, val, test and all."""
    return {
        label: {split: int((values == label).sum()) for split, values in parts[variable.name].items()}
        for label in variable.labels
    }


def quantiles(variable: Variable, parts: BySplit) -> dict[str, dict[str, float]]:
    """A continuous attribute: by train, val, test and all, then by the names of `QUANTILES` and `mean`."""
    return {
        split: dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
        | {"mean": float(values.mean())}
        for split, values in parts[variable.name].items()
    }


def spread(graph: Graph, rows: pd.DataFrame, count: int) -> list[int]:
    """`count` positions in `rows`, or all, of as many combinations of labels as there is room for.

    They stand in the order of the labels; those of one combination are spread over its continuous attributes.
    """
    keys = [_sortable(graph[name], rows) for name in graph.attributes]
    discrete = [key for name, key in zip(graph.attributes, keys, strict=True) if graph[name].is_discrete]
    numbers = [key for name, key in zip(graph.attributes, keys, strict=True) if not graph[name].is_discrete]
    order = np.lexsort([rows["row"].to_numpy(), *reversed(numbers), *reversed(discrete)])
    groups = [order]
    if discrete:
        combinations = np.stack(discrete, axis=1)[order]
        new = np.flatnonzero((combinations[1:] != combinations[:-1]).any(axis=1)) + 1
        groups = np.split(order, new)
    if len(groups) > count:
        groups = [groups[i] for i in np.linspace(0, len(groups) - 1, count).round().astype(int)]
    shares = _shares([len(group) for group in groups], count)
    return [row for group, n in zip(groups, shares, strict=True) for row in _pick(group, n)]


def _sortable(variable: Variable, rows: pd.DataFrame) -> np.ndarray:
    values = rows[variable.name].to_numpy()
    if not variable.is_discrete:
        return values
    values = values.astype(str)
    return sum((i * (values == label) for i, label in enumerate(variable.labels)), np.zeros(len(values), np.int64))


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of each group: as even as their sizes allow."""
    shares = [0] * len(sizes)
    while sum(shares) < min(count, sum(sizes)):
        for i, size in enumerate(sizes):
            if shares[i] < size and sum(shares) < count:
                shares[i] += 1
    return shares


def _pick(group: np.ndarray, n: int) -> list[int]:
    """`n` members at equal distances, from a start that differs from group to group."""
    start = (len(group) * GOLDEN) % 1
    return [int(group[int((i + start) * len(group) / n)]) for i in range(n)]
