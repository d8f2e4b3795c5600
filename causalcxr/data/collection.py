"""What the readers of published collections share: tables found and joined, rows rejected, a Source made of it."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.data.config import DataConfig
from causalcxr.data.files import channels_of, fingerprint
from causalcxr.data.images import read_sizes
from causalcxr.data.source import Source, Unusable
from causalcxr.graph import Graph, Variable
from causalcxr.support.errors import DataError, nearest

__all__ = [
    "Collection",
    "attribute_read_from",
    "cells",
    "find_file",
    "locate",
    "refuse_race",
    "reject",
    "reject_other_races",
    "reject_views",
    "rows_of",
    "table_in",
]


@dataclass(frozen=True)
class Collection:
    """An opened collection. `table` has path (relative to `root`), patient_id, perhaps split, and attributes."""

    name: str  # how an error names it: "MIMIC-CXR-JPG"
    root: Path
    read: Sequence[Path]  # the tables that were read
    table: pd.DataFrame
    unusable: dict[int, Unusable]
    about: dict[str, Any] = field(default_factory=dict)  # what was chosen: stored with the cohort
    noted: dict[str, int] = field(default_factory=dict)  # what the card should tell, and how often it is so
    bits: Sequence[int] | None = None  # of each row's file, where the table states them
    inverted: Sequence[bool] | None = None  # the rows whose bones are dark

    def source(self, config: DataConfig, graph: Graph) -> Source:
        """The image files that the table names. Raises DataError: an image of other than 1 or 3 channels."""
        about = {
            "source": config.source,
            "root": str(self.root),
            "tables": [_relative(path, self.root) for path in self.read],
            "views": list(config.views),
            "uncertain": config.uncertain,
            "other": dict(config.other),
            **self.about,
        }
        if noted := {sentence: count for sentence, count in self.noted.items() if count}:
            about["noted"] = noted
        key = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.read}
        where = f"{self.name} in '{self.root}'"
        channels = channels_of(graph)
        if not channels:
            return Source(where, about, key, lambda: self.table, lambda rows, sizes: [], lambda: self.unusable)
        paths = self.table["path"].tolist()
        key["files"] = fingerprint(self.root / path for row, path in enumerate(paths) if row not in self.unusable)
        bits = self.bits or [16] * len(paths)
        inverted = self.inverted or [False] * len(paths)

        def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray | Unusable]]:
            return [read_sizes(self.root / paths[row], sizes, channels, bits[row], inverted[row]) for row in rows]

        return Source(where, about, key, lambda: self.table, pixels, lambda: self.unusable)


def find_file(places: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first of `names` in the first of `places` that has one, plain or gzipped."""
    names = [f"{name}{ending}" for name in names for ending in ("", ".gz")]
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def table_in(places: Sequence[Path], names: Sequence[str], page: str) -> Path:
    """The table that must be there. Raises DataError, which says where it was looked for."""
    if found := find_file(places, names):
        return found
    looked = ", ".join(f"'{place}'" for place in places)
    raise DataError(f"no {' or '.join(names)} (or .gz) in {looked}; docs/data/{page}.md says what to download")


def cells(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """One column of a table as stripped text. Raises DataError: no such column."""
    if column not in table.columns:
        raise DataError(f"table '{path}' has no column '{column}'; {nearest(column, table.columns)}")
    return table[column].fillna("").str.strip()


def rows_of(keys: pd.Series, wanted: pd.Series, path: Path) -> np.ndarray:
    """The row of `keys` that has each of `wanted`, -1 where none. Raises DataError: a key in two rows."""
    index = pd.Index(keys)
    if not index.is_unique:
        raise DataError(
            f"table '{path}' has '{index[index.duplicated()][0]}' in two rows of '{keys.name}'; expected one"
        )
    return index.get_indexer(pd.Index(wanted))


def reject(unusable: dict[int, Unusable], mask: Any, reason: str, detail: str, said: pd.Series) -> None:
    """Reject the rows of a boolean mask, unless they are rejected already: the first reason counts.

    `{}` in the detail is filled with what is said of the row.
    """
    rows = np.flatnonzero(np.asarray(mask, dtype=bool))
    for row, what in zip(rows.tolist(), said.iloc[rows].tolist(), strict=True):
        if row not in unusable:
            unusable[row] = Unusable(reason, detail.format(what))


def reject_views(unusable: dict[int, Unusable], views: pd.Series, config: DataConfig) -> None:
    """Reject the projections that `data.views` doesn't list; an empty list keeps all."""
    if config.views:
        reject(unusable, ~views.isin(config.views), "other view", "view: '{}' is not in data.views", views)


def reject_other_races(unusable: dict[int, Unusable], races: pd.Series, config: DataConfig, graph: Graph) -> None:
    """Reject races without a label; called before findings are judged, as published cohorts count people."""
    attribute = attribute_read_from("race", config, graph)
    if attribute and attribute.name not in config.other:
        meant = config.labels.get(attribute.name) or attribute.labels
        reject(unusable, races == "", "blank value", f"{attribute.name} is empty", races)
        reject(
            unusable, ~races.isin(list(meant)), "other value", f"{attribute.name}: '{{}}' maps to no label", races
        )


def attribute_read_from(column: str, config: DataConfig, graph: Graph) -> Variable | None:
    """The attribute of the graph that is read from this column, if there is one."""
    return next((graph[name] for name in graph.attributes if config.columns.get(name, name) == column), None)


def refuse_race(name: str, config: DataConfig, graph: Graph) -> None:
    """Raises DataError if the graph has the race that this collection doesn't record."""
    if attribute := attribute_read_from("race", config, graph):
        raise DataError(
            f"{name} doesn't record {attribute.name}; take a graph without it: graph=chest_without_race"
        )


def locate(expected: pd.Series, root: Path, folders: Iterable[Path]) -> pd.Series:
    """Paths relative to `root`: the first of `folders` that has a file of this name, else as expected."""
    found: dict[str, str] = {}
    for folder in folders:
        if folder.is_dir():
            prefix = folder.relative_to(root)
            found = {file.name: (prefix / file.name).as_posix() for file in folder.iterdir()} | found
    return expected.map(lambda path: found.get(path.rpartition("/")[2], path))


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()  # MIMIC-IV may lie beside the root
