"""A cohort in numbers, from its manifest: rows and patients by split, labels and quantiles by attribute."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from causalcxr.data.table import SPLITS
from causalcxr.graph import Graph, Variable

__all__ = ["QUANTILES", "by_split", "label_counts", "quantiles", "split_sizes", "spread"]

QUANTILES = {"lowest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "highest": 1.0}
GOLDEN = 0.618  # its multiples spread evenly over [0, 1)


def by_split(manifest: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """The values of a column in train, val, test and all; numbers as float64, else text."""
    values = manifest[column].to_numpy()
    values = values.astype(np.float64) if values.dtype.kind == "f" else values.astype(str)
    splits = manifest["split"].to_numpy(dtype=str)
    return {split: values[splits == split] for split in SPLITS} | {"all": values}


def split_sizes(manifest: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Rows and patients of train, val, test and all."""
    return {split: (len(ids), len(set(ids))) for split, ids in by_split(manifest, "patient_id").items()}


def label_counts(variable: Variable, manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Rows of a discrete attribute: by label, in class order, then by train, val, test and all."""
    parts = by_split(manifest, variable.name)
    return {
        label: {split: int((values == label).sum()) for split, values in parts.items()}
        for label in variable.labels
    }


def quantiles(variable: Variable, manifest: pd.DataFrame) -> dict[str, dict[str, float]]:
    """A continuous attribute: by train, val, test and all, then by the names of `QUANTILES` and `mean`."""
    return {
        split: dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
        | {"mean": float(values.mean())}
        for split, values in by_split(manifest, variable.name).items()
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
