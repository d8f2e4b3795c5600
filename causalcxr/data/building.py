"""Writes the folders of a cohort: decoded in parallel, written in order whatever the number of workers.

A row is decoded once for all sizes. Memory holds only the few chunks that are being decoded; a killed process
leaves what it has done to the next one (`partial.py`).
"""

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.data.card import render_card
from causalcxr.data.config import DataConfig
from causalcxr.data.partial import PartialImages
from causalcxr.data.shared_pixels import count_shared, list_shared, refuse_shared, same_pictures
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import OTHER, SPLITS, Rejected, usable_rows
from causalcxr.data.working_folder import WorkingFolder, built_by
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError
from causalcxr.support.progress import progress_bar

__all__ = [
    "FORMAT",
    "build",
    "check_splits",
    "content_hash",
    "count_by_reason",
    "describe_variables",
    "reasons_in_words",
]

log = logging.getLogger(__name__)

FORMAT = 4  # raise it when the same source would give other content
CHUNK = 32  # rows decoded by one worker at a time, and rendered as one batch; the content must not depend on it
SHARED = "shared_pixels.csv"  # in a cohort that has such rows
LITTLE = "little of the stated range"
AHEAD = 2  # chunks a worker that may wait to be written


def build(
    works: Sequence[WorkingFolder], config: DataConfig, graph: Graph, source: Source
) -> list[dict[str, Any]]:
    """Fill the working folders, one for each size; return what their cohort.json say.

    Raises DataError: no usable row, an empty split, or an error of the table. Raises OSError: disk full.
    """
    rows, rejected = usable_rows(config, graph, source)
    check_splits(rows, rejected)
    if not graph.image:
        return [_write_tables(work, graph, source, rows, rejected, {}) for work in works]
    workers = config.workers or os.cpu_count() or 1
    written = _write_images(works, rows["row"].tolist(), source, graph[graph.image].channels, workers)
    kept = [_without(rows, rejected, images.unusable) for images in written]
    shared = [
        list_shared(kept_rows, same_pictures(images.checksums, _open_images(work.cohort)))
        for work, images, (kept_rows, _) in zip(works, written, kept, strict=True)
    ]
    for work, listed in zip(works, shared, strict=True):
        if len(listed):
            listed.to_csv(work.cohort / SHARED, index=False, lineterminator="\n")
        if config.shared_pixels == "refuse":
            refuse_shared(listed, source.where, str(work.cohort / SHARED))
    remarks = source.remarks()
    return [
        _write_tables(work, graph, source, *tables, _count_pixels(images, tables[0], listed, remarks))
        for work, images, tables, listed in zip(works, written, kept, shared, strict=True)
    ]


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


def reasons_in_words(counts: Mapping[str, int]) -> str:
    """`other value 19, broken image 2`, or `none`."""
    return ", ".join(f"{reason} {n:,}" for reason, n in counts.items()) or "none"


def check_splits(rows: pd.DataFrame, rejected: list[Rejected]) -> None:
    """Raise DataError where no row can be used, or a split has none."""
    reasons = reasons_in_words(count_by_reason(rejected))
    if rows.empty:
        first = f"; the first: {rejected[0].detail}" if rejected else ""
        words = "; data.labels says what other words mean" if OTHER in {row.reason for row in rejected} else ""
        raise DataError(f"none of {len(rejected):,} rows can be used: {reasons}{first}{words}")
    filled = set(rows["split"].unique())
    for split in SPLITS:
        if split not in filled:
            raise DataError(
                f"the split '{split}' has no usable row ({len(rows):,} in the others; rejected: {reasons}); "
                "give the table a split column with train, val and test, or change data.limit or data.split_seed"
            )


def _without(
    rows: pd.DataFrame, rejected: list[Rejected], unusable: dict[int, Unusable]
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Rows and rejected rows when those without a usable image, given by position, have been rejected too."""
    table_rows, paths = rows["row"].tolist(), rows["path"].tolist()
    rejected = sorted([*rejected, *(Rejected(table_rows[i], paths[i], *why) for i, why in unusable.items())])
    rows = rows.drop(index=list(unusable))
    check_splits(rows, rejected)
    return rows, rejected


def _count_pixels(
    images: PartialImages, rows: pd.DataFrame, shared: pd.DataFrame, remarks: Mapping[str, Collection[int]]
) -> dict[str, int]:
    """What should be told of the pixels kept: how many films each remark is true of, if any."""
    kept = rows["row"].tolist()
    remarked = {remark: len(set(of).intersection(kept)) for remark, of in remarks.items()}
    counts = {LITTLE: images.dim} | remarked | count_shared(shared)
    return {remark: n for remark, n in counts.items() if n}


def _open_images(folder: Path) -> np.ndarray:
    return np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)


def _write_tables(
    work: WorkingFolder,
    graph: Graph,
    source: Source,
    rows: pd.DataFrame,
    rejected: list[Rejected],
    pixels: dict[str, int],
) -> dict[str, Any]:
    folder = work.cohort
    rows.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    listed = pd.DataFrame(rejected, columns=list(Rejected._fields))
    listed.to_csv(folder / "rejected.csv", index=False, lineterminator="\n")
    described = {
        "format": FORMAT,
        "key": work.key,
        "graph": {"name": graph.name, "variables": describe_variables(graph)},
        "size": work.size,
        "source": source.about,
        "read": len(rows) + len(rejected),
        "kept": {split: list(rows["split"]).count(split) for split in SPLITS},
        "rejected": count_by_reason(rejected),
        "contradictions": rows.attrs.get("noted", {}),
        "pixels": pixels,
        "data_hash": content_hash(folder),
        "versions": built_by(),
    }
    _write_card(folder, described, graph, rows, listed)
    (folder / "cohort.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return described


def _write_card(
    folder: Path, described: dict[str, Any], graph: Graph, rows: pd.DataFrame, rejected: pd.DataFrame
) -> None:
    images = _open_images(folder) if graph.image else None
    (folder / "card.html").write_text(render_card(described, graph, rows, rejected, images), "utf-8")


def _write_images(
    works: Sequence[WorkingFolder], rows: list[int], source: Source, channels: int, workers: int
) -> list[PartialImages]:
    """Write the images that can be used, in the order of `rows`; what is returned knows the others."""
    with ExitStack() as stack:
        partials = [
            stack.enter_context(closing(_partial(work, len(rows), (channels, work.size, work.size))))
            for work in works
        ]
        position = min(partial.done for partial in partials)
        if position:
            log.info("goes on behind the %s of %s rows that are prepared", f"{position:,}", f"{len(rows):,}")
        sizes = [work.size for work in works]
        with progress_bar("prepare", len(rows), position, last_line=False) as advance:
            for images in _decode(source, rows[position:], sizes, workers):
                for partial, column in zip(partials, zip(*images, strict=True), strict=True):
                    partial.append(position, column)
                position += len(images)
                advance("", len(images))
        for partial in partials:
            partial.finish()
    return partials


def _partial(work: WorkingFolder, rows: int, shape: tuple[int, ...]) -> PartialImages:
    return PartialImages(work.cohort / "images.npy", work.journal, rows, shape)


def _decode(
    source: Source, rows: list[int], sizes: Sequence[int], workers: int
) -> Iterator[Sequence[Sequence[np.ndarray | Unusable]]]:
    """Chunks of pixels in the order of `rows`, decoded by threads: Pillow frees Python's lock while it decodes."""
    chunks = deque(rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            while chunks or waiting:
                while chunks and len(waiting) < AHEAD * workers:
                    waiting.append(threads.submit(source.pixels, chunks.popleft(), sizes))
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
