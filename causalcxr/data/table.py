"""A source's table to rows that can be used: columns found, labels and numbers read, splits assigned."""

import hashlib
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalcxr.data.config import DataConfig
from causalcxr.data.source import Source, Unusable
from causalcxr.graph import Graph, Variable
from causalcxr.support.errors import DataError, nearest

__all__ = ["SPLITS", "Rejected", "find_columns", "patient_uniform", "read_table", "usable_rows"]

SPLITS = ("train", "val", "test")
SPLIT_NAMES = dict(zip(SPLITS, SPLITS, strict=True)) | {"valid": "val", "validate": "val", "validation": "val"}
FIXED = ("row", "path", "patient_id", "split")  # the manifest's own columns
BLANK = ("", "nan", "na", "n/a", "null", "none")  # what tables write where nothing is known


class Rejected(NamedTuple):
    """A row of the source that can't be used; a line of rejected.csv."""

    row: int
    path: str
    reason: str
    detail: str


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, or one compressed as `.csv.gz`, as text, nothing guessed.

    Raises DataError: missing, not a CSV, cut short, empty, or a column named twice.
    """
    try:
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"no table '{path}'; set data.root and data.table") from None
    except (OSError, ValueError, EOFError, zlib.error) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"table '{path}' can't be read as CSV: {' '.join(str(error).split())}") from None
    header = [str(name).strip() for name in cells.iloc[0]]
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"table '{path}' has the column '{name}' twice; rename one")
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = header
    if table.empty:
        raise DataError(f"table '{path}' has a header and no rows")
    return table


def find_columns(config: DataConfig, graph: Graph, table: pd.DataFrame, where: str) -> dict[str, str]:
    """What we need (path, patient_id, split, attributes) to the column that has it.

    `path` is needed only for a graph with an image. `split` is absent from the result if the table has none and
    the configuration names none. Raises DataError: unknown key, missing column, a column used twice.
    """
    wanted = (*(("path",) if graph.image else ()), "patient_id", "split", *graph.attributes)
    for attribute in graph.attributes:
        if attribute in FIXED:
            raise DataError(f"graph '{graph.name}': the attribute '{attribute}' has the name of a manifest column")
    for key in config.columns:
        if key not in wanted:
            raise DataError(f"data.columns: '{key}' is nothing that is needed; {nearest(key, wanted)}")
    columns = {key: config.columns.get(key, key) for key in wanted}
    if "split" not in config.columns and "split" not in table.columns:
        del columns["split"]
    for key, column in columns.items():
        if column not in table.columns:
            hint = nearest(column, table.columns)
            raise DataError(f"{where} has no column '{column}' for '{key}'; {hint} (data.columns.{key})")
        for other in columns:
            if other != key and columns[other] == column:
                raise DataError(f"data.columns: '{key}' and '{other}' are both read from column '{column}'")
    return columns


def usable_rows(config: DataConfig, graph: Graph, source: Source) -> tuple[pd.DataFrame, list[Rejected]]:
    """The usable rows (row, path, patient_id, split, attributes) and the rejected ones, in the order of the table.

    Discrete attributes are labels of the graph, continuous ones float32. Images have not been looked at yet.
    Raises DataError: unknown split name, a patient in two splits, a mapping of an unknown attribute or label.
    """
    table = source.table()
    columns = find_columns(config, graph, table, source.where)
    for name in config.labels:
        if name not in graph.attributes:
            raise DataError(f"data.labels: no attribute '{name}' in the graph; {nearest(name, graph.attributes)}")
    for name, label in config.other.items():
        if name not in graph.attributes:
            raise DataError(f"data.other: no attribute '{name}' in the graph; {nearest(name, graph.attributes)}")
        if label not in graph[name].labels:
            raise DataError(
                f"data.other.{name}: no label '{label}' in the graph; {nearest(label, graph[name].labels)}"
            )
    fixed = _fixed_columns(config, table, columns, source.where)
    known_unusable = source.unusable()
    values = {
        name: _read_column(_text(table, columns[name]), _cell_reader(config, graph[name]))
        for name in graph.attributes
    }
    usable: list[int] = []
    rejected: list[Rejected] = []
    for row in _first_of_each_split(fixed["split"], config.limit):
        blank = (
            Unusable("blank value", f"{key} is empty") for key in columns if key in fixed and not fixed[key][row]
        )
        unread = (column[row] for column in values.values() if isinstance(column[row], Unusable))
        if problem := known_unusable.get(row) or next(chain(blank, unread), None):
            rejected.append(Rejected(row, fixed["path"][row], problem.reason, problem.detail))
        else:
            usable.append(row)
    kept: dict[str, Any] = {key: [column[row] for row in usable] for key, column in (fixed | values).items()}
    for name in graph.attributes:
        if not graph[name].is_discrete:
            kept[name] = np.array(kept[name], dtype=np.float32)
    return pd.DataFrame({"row": usable} | kept), rejected


def _fixed_columns(
    config: DataConfig, table: pd.DataFrame, columns: dict[str, str], where: str
) -> dict[str, list[str]]:
    """Path, patient_id and split of every row; an empty text where the table has nothing."""
    paths = _text(table, columns["path"]) if "path" in columns else [""] * len(table)
    patients = _text(table, columns["patient_id"])
    if "split" in columns:
        splits = _named_splits(_text(table, columns["split"]), columns["split"], where)
        _refuse_shared_patients(patients, splits, where)
    else:
        splits = _read_column(patients, _split_of_patient(config))
    return {"path": paths, "patient_id": patients, "split": splits}


def _text(table: pd.DataFrame, column: str) -> list[str]:
    return [cell.strip() for cell in table[column].tolist()]


def _read_column(cells: list[str], read: Callable[[str], Any]) -> list[Any]:
    """Each distinct cell is read once: a million rows have few distinct ones."""
    known = {cell: read(cell) for cell in dict.fromkeys(cells)}
    return [known[cell] for cell in cells]


def _cell_reader(config: DataConfig, variable: Variable) -> Callable[[str], Any]:
    name = variable.name
    if not variable.is_discrete:
        if name in config.labels:
            raise DataError(f"data.labels: '{name}' is continuous in the graph and has no labels")
        return lambda cell: _number(cell, variable)
    mapping = config.labels.get(name) or {label: label for label in variable.labels}
    for value, label in mapping.items():
        if label not in variable.labels:
            raise DataError(
                f"data.labels.{name}: '{value}' is mapped to '{label}', which is no label of the graph; "
                f"{nearest(label, variable.labels)}"
            )
    return lambda cell: _label(cell, name, mapping, config.separator, config.other.get(name))


def _label(cell: str, name: str, mapping: dict[str, str], separator: str, other: str | None) -> str | Unusable:
    members = [member.strip() for member in cell.split(separator)] if separator else [cell]
    found = list(dict.fromkeys(mapping[member] for member in members if member in mapping))
    if len(found) == 1:
        return found[0]
    if found:
        return Unusable("ambiguous", f"{name}: '{cell}' is {' and '.join(found)}")
    if cell.lower() in BLANK:
        return Unusable("blank value", f"{name} is empty")
    return other or Unusable("other value", f"{name}: '{cell}' maps to no label")


def _number(cell: str, variable: Variable) -> np.float32 | Unusable:
    if cell.lower() in BLANK:
        return Unusable("blank value", f"{variable.name} is empty")
    try:
        number = float(cell)
    except ValueError:
        return Unusable("not a number", f"{variable.name}: '{cell}'")
    low, high = variable.bounds
    if not low <= number <= high:
        expected = f"[{low:g}, {high:g}] {variable.unit}".rstrip()
        return Unusable("out of range", f"{variable.name}: {number:g} is not in {expected}")
    return np.float32(number)


def _named_splits(cells: list[str], column: str, where: str) -> list[str]:
    def split_of(cell: str) -> str:
        if cell and cell.lower() not in SPLIT_NAMES:
            hint = nearest(cell.lower(), SPLIT_NAMES)
            raise DataError(f"{where}: unknown split '{cell}' in column '{column}'; {hint}")
        return SPLIT_NAMES.get(cell.lower(), "")

    return _read_column(cells, split_of)


def _refuse_shared_patients(patients: list[str], splits: list[str], where: str) -> None:
    split_of: dict[str, str] = {}
    for patient, split in zip(patients, splits, strict=True):
        if patient and split and split_of.setdefault(patient, split) != split:
            both = f"{split_of[patient]} and {split}"
            raise DataError(f"{where}: patient '{patient}' is in {both}; a patient belongs to one split")


def _split_of_patient(config: DataConfig) -> Callable[[str], str]:
    def split_of(patient: str) -> str:
        uniform = patient_uniform(config.split_seed, patient)
        if uniform < config.test_fraction:
            return "test"
        return "val" if uniform < config.test_fraction + config.validation_fraction else "train"

    return split_of


def patient_uniform(seed: int, patient: str) -> float:
    """A number in [0, 1) drawn from the seed and the patient's name alone: it stays when the table grows."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _first_of_each_split(splits: list[str], limit: int) -> list[int]:
    taken = dict.fromkeys(splits, 0)
    rows = []
    for row, split in enumerate(splits):
        taken[split] += 1
        if not limit or taken[split] <= limit:
            rows.append(row)
    return rows
