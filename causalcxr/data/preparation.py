"""A cohort, whatever its source: a manifest and a memory-mapped uint8 image cache, prepared once.

cohort = open_cohort(config, graph)          # prepares on the first call
train = cohort.split("train")
batch = train.batch([3, 1, 2])               # {"sex": int64 (3,), ..., "image": uint8 (3, C, H, W)}
"""

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd

from causalcxr.data.building import FORMAT, SHARED, build, describe_variables, reasons_in_words
from causalcxr.data.cohort import Cohort, Split, open_folder
from causalcxr.data.config import DataConfig, check_config, expand
from causalcxr.data.readers.brax import brax_source
from causalcxr.data.readers.chexpert import chexpert_source
from causalcxr.data.readers.chexpert_plus import chexpert_plus_source
from causalcxr.data.readers.dicom import dicom_source
from causalcxr.data.readers.folder import folder_source
from causalcxr.data.readers.mimic import mimic_source
from causalcxr.data.readers.mira import mira_source
from causalcxr.data.readers.morphomnist import morphomnist_source
from causalcxr.data.readers.nih import nih_source
from causalcxr.data.readers.padchest import padchest_source
from causalcxr.data.readers.simulated import simulator_source
from causalcxr.data.readers.taixray import taixray_source
from causalcxr.data.shared_pixels import refuse_shared
from causalcxr.data.source import Source
from causalcxr.data.working_folder import WorkingFolder, lock, remove_leftovers, working_folder
from causalcxr.graph import Graph
from causalcxr.support.digest import digest
from causalcxr.support.errors import DataError

__all__ = ["Cohort", "Split", "open_cohort", "prepare", "prepare_into", "prepared_folder"]

log = logging.getLogger(__name__)

READERS = {
    "simulator": simulator_source,
    "folder": folder_source,
    "morphomnist": morphomnist_source,
    "mimic": mimic_source,
    "chexpert": chexpert_source,
    "chexpert_plus": chexpert_plus_source,
    "nih": nih_source,
    "padchest": padchest_source,
    "brax": brax_source,
    "taixray": taixray_source,
    "mira": mira_source,
    "dicom": dicom_source,
}


def open_cohort(config: DataConfig, graph: Graph) -> Cohort:
    """Open the cohort in `config.prepared`, or the one of `config.cache`, prepared now if it isn't there.

    Raises DataError or ConfigError: see `prepare`; a prepared folder that is damaged, or that has no such size or
    was made for a graph with other variables.
    """
    if config.prepared:
        return open_folder(prepared_folder(config), config.size, graph)
    return open_folder(prepare(config, graph), config.size, graph)


def prepare(config: DataConfig, graph: Graph) -> Path:
    """Build the cohort in `config.cache` if it isn't there, and return its folder.

    The folder is built under a temporary name and moved into place whole; its name has a hash of everything that
    its content depends on. Processes that want the same cohort wait for the one that builds it; what a killed one
    has done is taken over.
    Raises ConfigError: an impossible value. Raises DataError: missing folder, table or column, a patient or a
    picture in two splits, unknown split, empty split, no usable row, a full disk, a cache folder that can't be
    written.
    """
    check_config(config)
    source = READERS[config.source](config, graph)
    key = _key(config, graph, source)
    folder = expand(config.cache) / f"{config.source}-{config.size}-{key}"
    if not folder.exists():
        _build_missing(
            [WorkingFolder(folder, folder.name, config.size, key)], config, graph, source, "change data.cache"
        )
    _refuse_allowed_before([folder], config, source)
    return folder


def prepare_into(
    out: str | Path, config: DataConfig, graph: Graph, sizes: Sequence[int] = (), source: Source | None = None
) -> list[Path]:
    """Build the cohort in `out/SIZE` for each of the sizes, reading each image once; return these folders.

    Without `sizes`, `config.size` is the only one. `source` takes the place of the reader that `config.source`
    names. `data.prepared=OUT` trains on the result, wherever it is moved to.
    Raises ConfigError or DataError: as `prepare` does, or a folder that holds something else.
    """
    sizes = sorted(set(sizes or [config.size]))
    for size in sizes:
        check_config(replace(config, size=size))
    source = source or READERS[config.source](replace(config, size=sizes[0]), graph)
    places = [expand(str(out)) / str(size) for size in sizes]
    works = [
        WorkingFolder(place, f"{Path(out).name}/{size}", size, _key(replace(config, size=size), graph, source))
        for place, size in zip(places, sizes, strict=True)
    ]
    for work in works:
        _refuse_another(work)
    if any(work.folder.exists() or not work.place.exists() for work in works):
        _build_missing(works, config, graph, source, "choose another folder")
    _refuse_allowed_before(places, config, source)
    return places


def _key(config: DataConfig, graph: Graph, source: Source) -> str:
    """A hash of all that the content depends on: neither the cache's place nor the number of workers."""
    settings = {
        "format": FORMAT,
        "size": config.size,
        "limit": config.limit,
        "columns": dict(config.columns),
        "labels": {name: dict(mapping) for name, mapping in config.labels.items()},
        "other": dict(config.other),
        "separator": config.separator,
        "splits": [config.validation_fraction, config.test_fraction, config.split_seed],
        "people": config.patient_spelling,
        "variables": describe_variables(graph),
        "image": graph.image,
        "about": source.about,
        "key": source.key,
    }
    return digest(settings)[:12]


def _refuse_another(work: WorkingFolder) -> None:
    if not work.place.exists():
        return
    try:
        key = json.loads((work.place / "cohort.json").read_text("utf-8"))["key"]
    except (OSError, ValueError, KeyError):
        key = None
    if key != work.key:
        raise DataError(
            f"'{work.place}' holds something else, or a cohort of other settings or data; "
            "choose another folder or delete it"
        )


def _refuse_allowed_before(folders: Sequence[Path], config: DataConfig, source: Source) -> None:
    """Raise DataError if a cohort was prepared while pictures in two splits were allowed, and now they aren't."""
    for folder in folders:
        if config.shared_pixels == "refuse" and (folder / SHARED).is_file():
            listed = pd.read_csv(folder / SHARED, dtype={"path": str, "patient_id": str})
            refuse_shared(listed, source.where, str(folder / SHARED))


def _build_missing(
    works: Sequence[WorkingFolder], config: DataConfig, graph: Graph, source: Source, advice: str
) -> None:
    """Build what isn't there. Raises DataError: a full disk or a folder that can't be written."""
    places = [work.place for work in works]
    try:
        places[0].parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(places[0].parent, keep=[place for place in places if not place.exists()])
        with ExitStack() as locks:
            for place in places:
                locks.enter_context(lock(place))
            works = [work for work in works if not work.place.exists()]
            if works:
                _build_whole(works, config, graph, source)
    except OSError as error:
        kept = any(work.folder.exists() for work in works)
        hint = "; the same command then goes on from what is done" if kept else ""
        raise DataError(
            f"could not prepare '{places[0]}': {error.strerror or error}; free room or {advice}{hint}"
        ) from None


def _build_whole(works: Sequence[WorkingFolder], config: DataConfig, graph: Graph, source: Source) -> None:
    with ExitStack() as stack:
        for work in works:
            stack.enter_context(working_folder(work))
        described = build(works, config, graph, source)
    for work, cohort in zip(works, described, strict=True):
        kept, rejected = cohort["kept"], cohort["rejected"]
        log.info(
            "%s: kept %s of %s rows (%s); rejected: %s; see '%s'",
            work.name,
            f"{sum(kept.values()):,}",
            f"{cohort['read']:,}",
            ", ".join(f"{split} {n:,}" for split, n in kept.items()),
            reasons_in_words(rejected),
            work.place / "card.html",
        )


def prepared_folder(config: DataConfig) -> Path:
    """Where in `config.prepared` the cohort of `config.size` pixels is. Raises DataError if it isn't there."""
    out = expand(config.prepared)
    folder = out / str(config.size)
    if not folder.is_dir():
        if not out.is_dir():
            raise DataError(
                f"data.prepared: no folder '{out}'; make it with: causalcxr data prepare SOURCE ROOT OUT"
            )
        sizes = sorted(int(path.name) for path in out.iterdir() if path.name.isdecimal())
        there = f"there is {', '.join(map(str, sizes))}" if sizes else "it has no cohort at all"
        raise DataError(
            f"data.prepared: '{out}' has no cohort of {config.size} pixels (data.size), {there}; "
            "the presets hvae32 to hvae192 set data.size and the image model's together"
        )
    return folder
