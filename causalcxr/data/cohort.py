"""A cohort, whatever its source: a manifest and a memory-mapped uint8 image cache, prepared once.

cohort = open_cohort(config, graph)          # prepares on the first call
train = cohort.split("train")
batch = train.batch([3, 1, 2])               # {"sex": int64 (3,), ..., "image": uint8 (3, C, H, W)}
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from causalcxr.data.building import FORMAT, build, describe_variables
from causalcxr.data.chexpert import chexpert_source
from causalcxr.data.config import DataConfig, check_config, expand
from causalcxr.data.dicom import dicom_source
from causalcxr.data.folder import folder_source
from causalcxr.data.mimic import mimic_source
from causalcxr.data.mira import mira_source
from causalcxr.data.morphomnist import morphomnist_source
from causalcxr.data.nih import nih_source
from causalcxr.data.padchest import padchest_source
from causalcxr.data.simulated import simulator_source
from causalcxr.data.source import Source
from causalcxr.data.table import SPLITS
from causalcxr.errors import CausalCXRError, DataError, nearest
from causalcxr.graph import Graph
from causalcxr.values import encode

__all__ = ["Cohort", "Split", "open_cohort", "prepare"]

log = logging.getLogger(__name__)

READERS = {
    "simulator": simulator_source,
    "folder": folder_source,
    "morphomnist": morphomnist_source,
    "mimic": mimic_source,
    "chexpert": chexpert_source,
    "nih": nih_source,
    "padchest": padchest_source,
    "mira": mira_source,
    "dicom": dicom_source,
}
BUILDING = ".building-"  # prefix of the temporary folder


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

    def split(self, name: str) -> "Split":
        """The rows of train, val or test. Raises DataError for another name."""
        if name not in SPLITS:
            raise DataError(f"no split '{name}'; {nearest(name, SPLITS)}")
        return Split(self, name)


class Split:
    """The rows of one split, numbered from 0 in the order of the manifest."""

    def __init__(self, cohort: Cohort, name: str):
        self.cohort, self.graph, self.name = cohort, cohort.graph, name
        self.rows = np.flatnonzero(cohort.manifest["split"].to_numpy() == name)  # in the manifest

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def attributes(self) -> dict[str, Tensor]:
        """All rows of every attribute, `(N,)`: class indices int64, numbers float32 in the graph's unit."""
        rows = self.cohort.manifest.iloc[self.rows]
        return {
            name: encode(self.graph[name], rows[name].tolist(), len(rows)).contiguous()
            for name in self.graph.attributes
        }

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each row, text `(N,)`."""
        return self.cohort.manifest["patient_id"].to_numpy(dtype=str)[self.rows]

    @cached_property
    def ids(self) -> np.ndarray:
        """The row of the source, int64 `(N,)`; of simulated data the subject's id."""
        return self.cohort.manifest["row"].to_numpy(dtype=np.int64)[self.rows]

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> dict[str, Tensor]:
        """Rows by number, in the order given: attributes `(B,)` and the graph's image, uint8 `(B, C, H, W)`."""
        chosen = np.asarray(indices, dtype=np.int64)
        picked = torch.from_numpy(chosen)
        batch = {name: values[picked] for name, values in self.attributes.items()}
        if self.graph.image and self.cohort.images is not None:
            batch[self.graph.image] = torch.from_numpy(self.cohort.images[self.rows[chosen]])
        return batch


def open_cohort(config: DataConfig, graph: Graph) -> Cohort:
    """Open the cohort, prepared now if it isn't there.

    Raises DataError or ConfigError: see `prepare`; or a prepared folder that is damaged.
    """
    return _open_folder(prepare(config, graph), config, graph)


def prepare(config: DataConfig, graph: Graph) -> Path:
    """Build the cohort in `config.cache` if it isn't there, and return its folder.

    The folder is built under a temporary name and moved into place whole; its name has a hash of everything that
    its content depends on. Processes that want the same cohort wait for the one that builds it.
    Raises ConfigError: an impossible value. Raises DataError: missing folder, table or column, a patient in two
    splits, unknown split, empty split, no usable row, a full disk or a cache folder that can't be written.
    """
    check_config(config)
    source = READERS[config.source](config, graph)
    cache = expand(config.cache)
    folder = cache / f"{config.source}-{config.size}-{_key(config, graph, source)}"
    if folder.exists():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache)
        with _lock(cache, folder.name):
            if not folder.exists():
                _build_whole(folder, config, graph, source)
    except OSError as error:
        raise DataError(
            f"could not prepare '{folder}': {error.strerror or error}; free room or change data.cache"
        ) from None
    return folder


def _key(config: DataConfig, graph: Graph, source: Source) -> str:
    """A hash of all that the content depends on; not of the cache's place nor the number of workers."""
    settings = {
        "format": FORMAT,
        "size": config.size,
        "limit": config.limit,
        "columns": dict(config.columns),
        "labels": {name: dict(mapping) for name, mapping in config.labels.items()},
        "other": dict(config.other),
        "separator": config.separator,
        "splits": [config.validation_fraction, config.test_fraction, config.split_seed],
        "variables": describe_variables(graph),
        "image": graph.image,
        "about": source.about,
        "key": source.key,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _lock(cache: Path, name: str) -> FileLock:
    folder = cache / ".locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / name)  # freed by the system when its process dies


def _remove_leftovers(cache: Path) -> None:
    """Remove what interrupted preparations left; a folder that somebody builds right now is locked."""
    for folder in cache.glob(f"{BUILDING}*"):
        try:
            with _lock(cache, folder.name.removeprefix(BUILDING)).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            log.info("another process is preparing %s", folder.name.removeprefix(BUILDING))


def _build_whole(folder: Path, config: DataConfig, graph: Graph, source: Source) -> None:
    temporary = folder.with_name(f"{BUILDING}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that died while we waited for the lock
    try:
        temporary.mkdir()
        described = build(temporary, config, graph, source)
        temporary.rename(folder)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    kept, rejected = described["kept"], described["rejected"]
    log.info(
        "%s: kept %s of %s rows (%s); rejected: %s",
        folder.name,
        f"{sum(kept.values()):,}",
        f"{described['read']:,}",
        ", ".join(f"{split} {n:,}" for split, n in kept.items()),
        ", ".join(f"{reason} {n:,}" for reason, n in rejected.items()) or "none",
    )


def _open_folder(folder: Path, config: DataConfig, graph: Graph) -> Cohort:
    try:
        described = json.loads((folder / "cohort.json").read_text("utf-8"))
        manifest = _read_manifest(folder / "manifest.csv", graph)
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False) if graph.image else None
        n = sum(described["kept"].values())
        if len(manifest) != n:
            raise ValueError(f"manifest.csv has {len(manifest)} rows, cohort.json says {n}")
        if graph.image and images is not None:
            expected = (n, graph[graph.image].channels, config.size, config.size)
            if images.shape != expected or images.dtype != np.uint8:
                raise ValueError(f"images.npy is {images.dtype} {images.shape}, expected uint8 {expected}")
            images = images.view(np.ndarray)  # indexing a plain array costs a third of indexing a memmap
        cohort = Cohort(
            graph=graph,
            size=config.size,
            folder=folder,
            manifest=manifest,
            rejected=described["rejected"],
            data_hash=described["data_hash"],
            source=described["source"],
            images=images,
        )
        for split in SPLITS:
            _ = cohort.split(split).attributes  # every label and number is one that the graph allows
    except (OSError, ValueError, KeyError, CausalCXRError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the prepared cohort '{folder}' is damaged ({reason}); delete it to prepare anew"
        ) from None
    return cohort


def _read_manifest(path: Path, graph: Graph) -> pd.DataFrame:
    types: dict[Hashable, Any] = {"row": np.int64, "path": str, "patient_id": str, "split": str}
    types |= {name: str if graph[name].is_discrete else np.float32 for name in graph.attributes}
    return pd.read_csv(path, dtype=types, keep_default_na=False)
