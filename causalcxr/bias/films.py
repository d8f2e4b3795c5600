"""The films of a study: everyone without the bias and, for each kind, everyone with it; each made once.

A group is only a choice between the two. Who is in group B follows from the finding, q, and a number of each
subject: people, films and findings are the same at every q, and the twin's films are those without the bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from causalcxr import simulator
from causalcxr.bias.planting import on_films, plant
from causalcxr.data.cohort import Cohort
from causalcxr.data.rows import Indices
from causalcxr.support.digest import digest
from causalcxr.support.files import write_atomically
from causalcxr.support.progress import progress_bar

__all__ = ["GROUP", "IMAGE", "WEIGHT", "Films", "GroupRows", "make_films", "open_films"]

_AT_ONCE = 256
IMAGE, GROUP, WEIGHT = "_image", "_group", "_weight"  # in a batch; no attribute's name begins so


@dataclass(frozen=True)
class Films:
    """Films of all subjects, `uint8 (N, C, H, W)` memory maps: `plain`, and `biased` by name of the bias.

    `finding` bool `(N,)`, `split` `(N,)` text, `patients` `(N,)` text, `ids` int64 `(N,)`.
    """

    plain: np.ndarray
    biased: Mapping[str, np.ndarray]
    finding: np.ndarray
    split: np.ndarray
    patients: np.ndarray
    ids: np.ndarray

    @cached_property
    def _noise(self) -> dict[str, np.ndarray]:
        drawn = simulator.noise(0, torch.tensor(self.ids))
        return {name: drawn[name].numpy() for name in ("group", "recorded", "selected")}

    def rows(self, split: str) -> np.ndarray:
        """The numbers of a split's subjects."""
        return np.flatnonzero(self.split == split)

    def some(self, n: int) -> np.ndarray:
        """At most n test subjects, evenly from the table, which may be sorted."""
        return _evenly(self.rows("test"), n)

    def some_with_finding(self, n: int) -> np.ndarray:
        """The same of those who have the finding."""
        rows = self.rows("test")
        return _evenly(rows[self.finding[rows]], n)

    def group(self, q: float) -> np.ndarray:
        """Who is in group B, bool `(N,)`."""
        return self._noise["group"] < np.where(self.finding, q, 1.0 - q)

    def recorded(self, q: float, underdiagnosis: float) -> np.ndarray:
        """The finding as it is written down, bool `(N,)`: in group B some are missed."""
        return self.finding & ~(self.group(q) & (self._noise["recorded"] < underdiagnosis))

    def selected(self, q: float, selection: float) -> np.ndarray:
        """Who is in the data, bool `(N,)`: of group B some with the finding are left out."""
        return ~(self.finding & self.group(q) & (self._noise["selected"] < selection))


class GroupRows:
    """Rows to train on: IMAGE by group, the finding as recorded, GROUP, and WEIGHT in the loss."""

    def __init__(
        self,
        films: Films,
        rows: np.ndarray,
        finding: str,
        bias: str = "",
        group: np.ndarray | None = None,
        recorded: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ):
        """`bias` names the biased films; `group`, `recorded`, `weight` are of all subjects `(N,)`."""
        n = len(films.finding)
        self.films, self.numbers, self.finding, self.bias = films, rows, finding, bias
        self.group = np.zeros(n, dtype=bool) if group is None else group
        self.recorded = films.finding if recorded is None else recorded
        self.weight = np.ones(n) if weight is None else weight

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        chosen = self.numbers[np.asarray(indices, dtype=np.int64)]
        image, in_b = self.films.plain[chosen], self.group[chosen]
        if self.bias and in_b.any():
            image[in_b] = self.films.biased[self.bias][chosen[in_b]]
        return {
            IMAGE: torch.from_numpy(image),
            self.finding: torch.from_numpy(self.recorded[chosen].astype(np.int64)),
            GROUP: torch.from_numpy(in_b.astype(np.int64)),
            WEIGHT: torch.from_numpy(self.weight[chosen].astype(np.float32)),
        }

    def of_group(self, group: int) -> "GroupRows":
        """Those in group A (0) or B (1)."""
        return self.subset(np.flatnonzero(self.group[self.numbers] == bool(group)))

    def subset(self, indices: Indices) -> "GroupRows":
        rows = self.numbers[np.asarray(indices, dtype=np.int64)]
        return GroupRows(self.films, rows, self.finding, self.bias, self.group, self.recorded, self.weight)


def _evenly(rows: np.ndarray, n: int) -> np.ndarray:
    return rows[np.arange(min(n, len(rows))) * len(rows) // min(n, len(rows))] if n and len(rows) else rows[:0]


def make_films(cohort: Cohort, folder: Path, biases: Mapping[str, Mapping[str, float]]) -> None:
    """Write the films of every bias that changes them, unless they are there; those that look alike once."""
    n = len(cohort.manifest)
    wanted = {_path(folder, channels): channels for channels in biases.values() if on_films(channels)}
    left = {path: channels for path, channels in wanted.items() if not path.exists()}
    with progress_bar("films", n * len(left), shown=bool(left)) as advance:
        for path, channels in left.items():
            parts = []
            for rows in np.split(np.arange(n), range(_AT_ONCE, n, _AT_ONCE)):
                parts.append(plant(cohort, rows, channels))
                advance(", ".join(on_films(channels)), len(rows))
            made = np.concatenate(parts)
            write_atomically(path, lambda file, made=made: np.save(file, made))


def _path(folder: Path, channels: Mapping[str, float]) -> Path:
    """Named by all that the films depend on besides the cohort."""
    return folder / f"{digest(on_films(channels))}.npy"


def open_films(cohort: Cohort, folder: Path, finding: str, biases: Mapping[str, Mapping[str, float]]) -> Films:
    """The films of a cohort whose biased ones have been made."""
    assert cohort.images is not None
    manifest, variable, images = cohort.manifest, cohort.graph[finding], cohort.images

    def read(channels: Mapping[str, float]) -> np.ndarray:
        return np.load(_path(folder, channels), mmap_mode="r", allow_pickle=False).view(np.ndarray)

    return Films(
        plain=images,
        biased={name: read(channels) if on_films(channels) else images for name, channels in biases.items()},
        finding=manifest[finding].to_numpy(dtype=str) == variable.labels[1],
        split=manifest["split"].to_numpy(dtype=str),
        patients=manifest["patient_id"].to_numpy(dtype=str),
        ids=manifest["row"].to_numpy(dtype=np.int64),
    )
