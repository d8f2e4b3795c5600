"""A prepared cohort, opened: its rows, and batches of them read from the memory map."""

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from causalcxr.data.building import describe_variables
from causalcxr.data.rows import Indices
from causalcxr.data.table import SPLITS
from causalcxr.graph import Graph, Variable
from causalcxr.support.errors import CausalCXRError, DataError, nearest
from causalcxr.values import encode

__all__ = ["Cohort", "Split", "open_folder"]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Prepared data. `manifest` has row (in the source), path, patient_id, split and one column per attribute.

    `rejected` counts the rows left out by reason (rejected.csv in `folder` lists them); `data_hash` is the sha256
    of images.npy followed by manifest.csv; `source` says where the data came from, and for simulated data has the
    seed and the knobs that `causalcxr.simulator` needs to make it again.
    """

    graph: Graph
    size: int
    folder: Path
    manifest: pd.DataFrame
    rejected: dict[str, int]
    data_hash: str
    source: dict[str, Any]
    images: np.ndarray | None  # uint8 (N, C, H, W), read-only memory map

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(self.split(name)):,}" for name in SPLITS)
        return f"Cohort of graph '{self.graph.name}' at {self.size} pixels in '{self.folder}': {sizes}"

    def split(self, name: str) -> "Split":
        """The rows of train, val or test. Raises DataError for another name."""
        if name not in SPLITS:
            raise DataError(f"no split '{name}'; {nearest(name, SPLITS)}")
        return Split(self, name)


class Split:
    """The rows of one split, or some of them (`subset`), numbered from 0 in the order of the manifest."""

    def __init__(self, cohort: Cohort, name: str, rows: np.ndarray | None = None):
        self.cohort, self.graph, self.name = cohort, cohort.graph, name
        self.rows = np.flatnonzero(cohort.manifest["split"].to_numpy() == name) if rows is None else rows

    def __repr__(self) -> str:
        return f"Split '{self.name}' of {len(self):,} rows: {', '.join(self.graph.variables)}"

    def subset(self, indices: Indices) -> "Split":
        """These rows as a split of their own; `indices` number the rows of this one, in any order."""
        return Split(self.cohort, self.name, self.rows[np.asarray(indices)])

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def attributes(self) -> dict[str, Tensor]:
        """All rows of every attribute, `(N,)`: class indices int64, numbers float32 in the graph's unit."""
        rows = self.cohort.manifest.iloc[self.rows]
        return {name: _encode_column(self.graph[name], rows[name]) for name in self.graph.attributes}

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each row, text `(N,)`."""
        return self.cohort.manifest["patient_id"].to_numpy(dtype=str)[self.rows]

    @cached_property
    def ids(self) -> np.ndarray:
        """The row of the source, int64 `(N,)`; of simulated data the subject's id."""
        return self.cohort.manifest["row"].to_numpy(dtype=np.int64)[self.rows]

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        """Rows by number, in the order given: attributes `(B,)` and the graph's image, uint8 `(B, C, H, W)`."""
        chosen = np.asarray(indices, dtype=np.int64)
        picked = torch.from_numpy(chosen)
        batch = {name: values[picked] for name, values in self.attributes.items()}
        if self.graph.image and self.cohort.images is not None:
            batch[self.graph.image] = torch.from_numpy(self.cohort.images[self.rows[chosen]])
        return batch

    def images(self, batch_size: int = 256) -> Iterator[Tensor]:
        """All images, uint8 `(B, C, H, W)`, in the order of the rows."""
        assert self.graph.image is not None
        for start in range(0, len(self), batch_size):
            yield self.batch(range(start, min(start + batch_size, len(self))))[self.graph.image]


def open_folder(folder: Path, size: int, graph: Graph) -> Cohort:
    """Open a prepared folder. Raises DataError: damaged, or made for a graph whose variables are others."""
    try:
        described = json.loads((folder / "cohort.json").read_text("utf-8"))
        n, variables = sum(described["kept"].values()), described["graph"]["variables"]
        assert isinstance(variables, dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise _damaged(folder, error) from None
    _refuse_other_variables(folder, variables, graph)
    try:
        manifest = _read_manifest(folder / "manifest.csv", graph)
        if len(manifest) != n:
            raise ValueError(f"manifest.csv has {len(manifest)} rows, cohort.json says {n}")
        images = _map_images(folder, (n, graph[graph.image].channels, size, size)) if graph.image else None
        cohort = Cohort(
            graph=graph,
            size=size,
            folder=folder,
            manifest=manifest,
            rejected=described["rejected"],
            data_hash=described["data_hash"],
            source=described["source"],
            images=images,
        )
        for split in SPLITS:
            _ = cohort.split(split).attributes  # every label and number is one that the graph allows
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, CausalCXRError) as error:
        raise _damaged(folder, error) from None
    return cohort


def _damaged(folder: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"the prepared cohort '{folder}' is damaged ({reason}); delete it to prepare anew")


def _refuse_other_variables(folder: Path, prepared: dict[str, Any], graph: Graph) -> None:
    """The cohort may have more variables than the graph; those of both must have the same labels and ranges."""
    for name, wanted in describe_variables(graph).items():
        if name not in prepared:
            has = f"has no '{name}', only {', '.join(prepared)}"
        elif prepared[name] != wanted:
            has = f"has '{name}' as {prepared[name]}, graph '{graph.name}' as {wanted}"
        else:
            continue
        raise DataError(
            f"the prepared cohort '{folder}' {has}; set graph= to its graph, or prepare it with this one"
        )


def _read_manifest(path: Path, graph: Graph) -> pd.DataFrame:
    types: dict[Hashable, Any] = {"row": np.int64, "path": str, "patient_id": str, "split": str}
    types |= {name: str if graph[name].is_discrete else np.float32 for name in graph.attributes}
    return pd.read_csv(path, usecols=list(types), dtype=types, keep_default_na=False)


def _map_images(folder: Path, expected: tuple[int, ...]) -> np.ndarray:
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    if images.shape != expected or images.dtype != np.uint8:
        raise ValueError(f"images.npy is {images.dtype} {images.shape}, expected uint8 {expected}")
    return images.view(np.ndarray)  # indexing a plain array costs a third of indexing a memmap


def _encode_column(variable: Variable, column: pd.Series) -> Tensor:
    """All values `(N,)`; a label is looked up once, however many rows have it."""
    if not variable.is_discrete:
        return encode(variable, column.to_numpy(np.float32, copy=True), len(column))
    classes, labels = pd.factorize(column)
    return encode(variable, list(labels), len(labels))[torch.from_numpy(classes)]
