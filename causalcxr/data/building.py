"""Writes the folder of a cohort: decoded in parallel, written in order whatever the number of workers.

Images are appended to the file instead of written into a memory map: a full disk is then an error and not a
crash, a rejected image leaves no gap, and memory holds only the few chunks that are being decoded.
"""

import hashlib
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from causalcxr.data.config import DataConfig
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import SPLITS, Rejected, usable_rows
from causalcxr.errors import DataError
from causalcxr.graph import Graph

__all__ = ["FORMAT", "build", "check_splits", "content_hash", "count_by_reason", "describe_variables"]

FORMAT = 1  # raise it when the same source would give other content
CHUNK = 32  # rows decoded by one worker at a time, and rendered as one batch; the content must not depend on it
AHEAD = 2  # chunks a worker that may wait to be written


def build(folder: Path, config: DataConfig, graph: Graph, source: Source) -> dict[str, Any]:
    """Fill the existing, empty `folder`; return what cohort.json says.

    Raises DataError: no usable row, an empty split, or an error of the table. Raises OSError: disk full.
    """
    rows, rejected = usable_rows(config, graph, source)
    check_splits(rows, rejected)
    if graph.image:
        shape = (graph[graph.image].channels, config.size, config.size)
        unusable = _write_images(folder / "images.npy", rows, source, shape, config.workers or os.cpu_count() or 1)
        table_rows, paths = rows["row"].tolist(), rows["path"].tolist()
        rejected += [Rejected(table_rows[i], paths[i], *problem) for i, problem in unusable.items()]
        rejected.sort()
        rows = rows.drop(index=list(unusable))
        check_splits(rows, rejected)
    rows.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    listed = pd.DataFrame(rejected, columns=list(Rejected._fields))
    listed.to_csv(folder / "rejected.csv", index=False, lineterminator="\n")
    described = {
        "format": FORMAT,
        "graph": {"name": graph.name, "variables": describe_variables(graph)},
        "size": config.size,
        "source": source.about,
        "read": len(rows) + len(rejected),
        "kept": {split: list(rows["split"]).count(split) for split in SPLITS},
        "rejected": count_by_reason(rejected),
        "data_hash": content_hash(folder),
        "versions": {package: version(package) for package in ("causalcxr", "numpy", "pillow")},
    }
    (folder / "cohort.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return described


def describe_variables(graph: Graph) -> dict[str, Any]:
    """What of each variable the content depends on: labels, range or channels, but no edges."""
    described: dict[str, Any] = {}
    for variable in graph.variables.values():
        if variable.is_discrete:
            described[variable.name] = list(variable.labels)
        else:
            described[variable.name] = list(variable.range) if variable.range else variable.channels
    return described


def content_hash(folder: Path) -> str:
    """sha256 of images.npy followed by manifest.csv."""
    digest = hashlib.sha256()
    for name in ("images.npy", "manifest.csv"):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def count_by_reason(rejected: list[Rejected]) -> dict[str, int]:
    """How many rows were rejected for which reason, the most common first."""
    return dict(Counter(row.reason for row in rejected).most_common())


def check_splits(rows: pd.DataFrame, rejected: list[Rejected]) -> None:
    """Raise DataError where no row can be used, or a split has none."""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in count_by_reason(rejected).items()) or "nothing rejected"
    if rows.empty:
        first = f"; the first: {rejected[0].detail}" if rejected else ""
        raise DataError(f"none of {len(rejected):,} rows can be used: {reasons}{first}")
    for split in SPLITS:
        if split not in set(rows["split"]):
            raise DataError(
                f"the split '{split}' has no usable row ({len(rows):,} in the others; rejected: {reasons}); "
                "give the table a split column with train, val and test, or change data.limit or data.split_seed"
            )


def _write_images(
    path: Path, rows: pd.DataFrame, source: Source, shape: tuple[int, ...], workers: int
) -> dict[int, Unusable]:
    """Write the images that can be used, in the order of `rows`; return the others by their position."""
    unusable: dict[int, Unusable] = {}
    with path.open("wb") as file, _progress(len(rows)) as progress:
        _write_header(file, (len(rows), *shape))
        start = file.tell()
        for position, image in enumerate(_read_in_parallel(source, list(rows["row"]), workers)):
            if isinstance(image, Unusable):
                unusable[position] = image
            else:
                assert image.shape == shape and image.dtype == np.uint8, (image.shape, image.dtype)
                file.write(image.tobytes())
            progress.advance(progress.task_ids[0])
        file.seek(0)
        _write_header(file, (len(rows) - len(unusable), *shape))
        assert file.tell() == start, "numpy leaves room in the header for a number of rows that changes"
    return unusable


def _read_in_parallel(source: Source, rows: list[int], workers: int) -> Iterator[np.ndarray | Unusable]:
    """Pixels in the order of `rows`, decoded by threads: Pillow frees Python's lock while it decodes."""
    chunks = deque(rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            while chunks or waiting:
                while chunks and len(waiting) < AHEAD * workers:
                    waiting.append(threads.submit(source.pixels, chunks.popleft()))
                yield from waiting.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _progress(total: int) -> Progress:
    columns = (TextColumn("preparing images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    progress.add_task("images", total=total)
    return progress
