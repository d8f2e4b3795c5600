"""The attributes of a cohort without its images: from a table, a prepared folder, or the keys of the data."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from causalcxr.check.basis import RARE
from causalcxr.config import Config, load_config
from causalcxr.data.building import check_splits, count_by_reason, reasons_in_words
from causalcxr.data.cohort import Cohort
from causalcxr.data.config import DataConfig, check_config, expand
from causalcxr.data.preparation import READERS, prepared_folder
from causalcxr.data.source import Source
from causalcxr.data.table import SPLITS, in_any_case, read_table, usable_rows
from causalcxr.graph import Graph, load_graph
from causalcxr.mechanisms.registry import choose_image_mechanism
from causalcxr.support.errors import DataError

__all__ = ["open_attributes", "whole_cohort"]

log = logging.getLogger(__name__)

FEWEST_PATIENTS = 100


def open_attributes(graph: str, cohort: Sequence[str]) -> tuple[Cohort, Config]:
    """The attributes of `graph` in `cohort`, and the configuration with which to fit them.

    `cohort` is the folder of a prepared cohort, or a CSV with a column for each attribute (patient_id and split
    are optional), or neither; then `key=value` arguments as `causalcxr train` takes them. Nothing is written.
    Raises DataError: no such table or column, no usable row, an empty split, too few patients, a constant column;
    and what a source raises. Raises ConfigError: an unknown key. Raises GraphError: no such graph.
    """
    attributes, rejected = choose_image_mechanism(load_graph(graph)).without_image(), {}
    named = "=" not in cohort[0]
    config = load_config(cohort[1:] if named else cohort)
    config.data.columns.pop("path", None)  # of the image
    check_config(config.data)
    if not named and config.data.prepared:
        source, rejected = _prepared(prepared_folder(config.data))
        config.data = DataConfig(prepared=config.data.prepared, size=config.data.size)  # no other key is read
    elif not named:
        source = READERS[config.data.source](config.data, attributes)
    elif expand(cohort[0]).is_dir():
        source, rejected = _prepared(expand(cohort[0]))
    else:
        source = _table(expand(cohort[0]), config.data)
    return _read(attributes, config.data, source, rejected), config


def whole_cohort(cohort: Cohort) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows of every attribute, `(N,)`, and the patient of each, numbered from 0."""
    splits = [cohort.split(name) for name in SPLITS]
    attributes = {
        name: np.concatenate([split.attributes[name].numpy() for split in splits])
        for name in cohort.graph.attributes
    }
    patients = np.concatenate([split.patients for split in splits])
    return attributes, np.unique(patients, return_inverse=True)[1]


def _table(path: Path, config: DataConfig) -> Source:
    table = read_table(path)
    if "patient_id" not in config.columns and in_any_case("patient_id", table.columns) not in table.columns:
        log.info("table '%s' has no column 'patient_id': every row counts as another patient", path)
        table["patient_id"] = [str(row) for row in range(len(table))]
    about = {"source": "table", "table": str(path)}
    return Source(f"table '{path}'", about, {}, lambda: table, lambda rows, sizes: [])


def _prepared(folder: Path) -> tuple[Source, dict[str, int]]:
    try:
        rejected = json.loads((folder / "cohort.json").read_text("utf-8"))["rejected"]
    except (OSError, ValueError, KeyError):
        raise DataError(
            f"'{folder}' is not the folder of a prepared cohort: it has no readable 'cohort.json'; "
            "name one in data.cache, OUT/SIZE of 'causalcxr data prepare', or a CSV"
        ) from None
    return _table(folder / "manifest.csv", DataConfig()), rejected


def _read(graph: Graph, config: DataConfig, source: Source, rejected_before: dict[str, int]) -> Cohort:
    rows, rejected = usable_rows(config, graph, source)
    check_splits(rows, rejected)
    if (patients := len(set(rows["patient_id"]))) < FEWEST_PATIENTS:
        reasons = reasons_in_words(count_by_reason(rejected))
        raise DataError(
            f"{source.where}: {len(rows):,} usable rows of {patients:,} patients are too few to test a graph on; "
            f"at least {FEWEST_PATIENTS} patients are needed (rejected: {reasons})"
        )
    for name in graph.attributes:
        _refuse_constant(name, rows[name].to_numpy(), source.where)
    return Cohort(
        graph=graph,
        size=config.size,
        folder=Path(),
        manifest=rows,
        rejected=rejected_before | count_by_reason(rejected),
        data_hash="",
        source=source.about,
        images=None,
    )


def _refuse_constant(name: str, values: np.ndarray, where: str) -> None:
    distinct, counts = np.unique(values.astype(str), return_counts=True)
    common, others = distinct[counts.argmax()], len(values) - counts.max()
    if others < RARE:
        but = f"but {others} of " if others else ""
        raise DataError(
            f"{where}: '{name}' is '{common}' in all {but}{len(values):,} rows, so nothing can be tested about "
            f"it; at least {RARE} rows must differ: remove it from the graph or take other rows"
        )
