"""A source's table to rows that can be used: columns found, labels and numbers read, splits assigned."""

import hashlib
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalcxr.data.config import DataConfig
from causalcxr.data.people import is_band, years
from causalcxr.data.same import Names, contradictions, one_name_each, shared_files
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table_file import read_table
from causalcxr.graph import Graph, Variable
from causalcxr.support.errors import DataError, nearest

__all__ = [
    "OTHER",
    "SPLITS",
    "Rejected",
    "find_columns",
    "in_any_case",
    "patient_uniform",
    "read_table",
    "usable_rows",
]

SPLITS = ("train", "val", "test")
SPLIT_NAMES = dict(zip(SPLITS, SPLITS, strict=True)) | {"valid": "val", "validate": "val", "validation": "val"}
OF_A_PERSON = ("sex", "race", "ethnicity")  # what one person has one of
OTHER = "other value"  # than any label's
FIXED = ("row", "path", "patient_id", "split")  # the manifest's own columns
BLANK = ("", "nan", "na", "n/a", "#n/a", "null", "none")  # what tables write where nothing is known
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
COMMA = re.compile(r"[+-]?(\d*),(\d+)")  # 45,5 in the tables of many countries; 1,234 may be either


class Rejected(NamedTuple):
    """A row of the source that can't be used; a line of rejected.csv."""

    row: int
    path: str
    reason: str
    detail: str


def find_columns(config: DataConfig, graph: Graph, table: pd.DataFrame, where: str) -> dict[str, str]:
    """What we need (path, patient_id, split, study_id, attributes) to the column that has it.

    `path` is needed only for a graph with an image. `split` and `study_id` are absent from the result if the table
    has none and the configuration names none. Names may differ in case where only one column then fits.
    Raises DataError: unknown key, missing column, a column used twice.
    """
    optional = [key for key in ("split", "study_id") if key not in graph.attributes]
    wanted = (*(("path",) if graph.image else ()), "patient_id", *optional, *graph.attributes)
    for attribute in graph.attributes:
        if attribute in FIXED:
            raise DataError(f"graph '{graph.name}': the attribute '{attribute}' has the name of a manifest column")
    for key in config.columns:
        if key not in wanted:
            raise DataError(f"data.columns: '{key}' is nothing that is needed; {nearest(key, wanted)}")
    columns = {key: in_any_case(config.columns.get(key, key), table.columns) for key in wanted}
    for key in optional:
        if key not in config.columns and columns[key] not in table.columns:
            del columns[key]
    if "study_id" in optional and "study_id" not in config.columns and "study_id" in columns:
        others = [column for key, column in columns.items() if key != "study_id"]
        if columns["study_id"] in others:  # a table without people, its studies taken for them
            del columns["study_id"]
    for key, column in columns.items():
        if column not in table.columns:
            hint = nearest(column, table.columns)
            raise DataError(f"{where} has no column '{column}' for '{key}'; {hint} (data.columns.{key})")
        for other in columns:
            if other != key and columns[other] == column:
                raise DataError(f"data.columns: '{key}' and '{other}' are both read from column '{column}'")
    return columns


def in_any_case(name: str, names: Collection[str]) -> str:
    """The one of `names` that is `name`, or the only one that is but for case, spaces and dashes; else `name`."""
    alike = [each for each in names if _folded(each) == _folded(name)]
    return name if name in names or len(alike) != 1 else alike[0]


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def usable_rows(config: DataConfig, graph: Graph, source: Source) -> tuple[pd.DataFrame, list[Rejected]]:
    """The usable rows (row, path, patient_id, split, attributes) and the rejected ones, in the order of the table.

    Discrete attributes are labels of the graph, continuous ones float32. Images have not been looked at yet. One
    person has one patient_id, however the table writes it. `attrs["noted"]` of the rows counts what contradicts
    itself, by a sentence. Raises DataError: unknown split name, a patient in two splits under any spelling, a file
    of several people in two splits, a mapping of an unknown attribute or label.
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
    fixed, names = _fixed_columns(config, table, columns, source.where)
    known_unusable = source.unusable()
    values = {}
    for name in graph.attributes:
        cells = _text(table, columns[name])
        values[name] = _read_column(cells, _cell_reader(config, graph[name], cells))
    blank = {key: Unusable("blank value", f"{key} is empty") for key in columns if key in fixed}
    problems: dict[int, Unusable] = {}  # the first of each row, in the order of the columns
    for column in reversed(values.values()):
        problems |= {row: cell for row, cell in enumerate(column) if isinstance(cell, Unusable)}
    for key, problem in reversed(blank.items()):
        problems |= {row: problem for row, cell in enumerate(fixed[key]) if not cell}
    problems |= known_unusable
    usable: list[int] = []
    rejected: list[Rejected] = []
    for row in _first_of_each_split(fixed["split"], config.limit):
        if problem := problems.get(row):
            rejected.append(Rejected(row, fixed["path"][row], problem.reason, problem.detail))
        else:
            usable.append(row)
    kept: dict[str, Any] = {key: [column[row] for row in usable] for key, column in (fixed | values).items()}
    for name in graph.attributes:
        if not graph[name].is_discrete:
            kept[name] = np.array(kept[name], dtype=np.float32)
    rows = pd.DataFrame({"row": usable} | kept)
    noted = names.noted(set(kept["patient_id"]))
    if graph.image:
        noted |= shared_files(rows, source, config.shared_pixels == "refuse")
    studies = _text(table, columns["study_id"]) if "study_id" in columns else None
    noted |= contradictions(rows, _constant(config, graph), list(graph.attributes), studies)
    rows.attrs["noted"] = {sentence: count for sentence, count in noted.items() if count}
    return rows, rejected


def _constant(config: DataConfig, graph: Graph) -> list[str]:
    """The attributes that one person has one of, as far as a form knows."""
    discrete = [name for name in graph.attributes if graph[name].is_discrete]
    return [name for name in discrete if {name, config.columns.get(name)} & set(OF_A_PERSON)]


def _fixed_columns(
    config: DataConfig, table: pd.DataFrame, columns: dict[str, str], where: str
) -> tuple[dict[str, list[str]], Names]:
    """Path, patient_id and split of every row, an empty text where the table has nothing; and who is who."""
    paths = _text(table, columns["path"]) if "path" in columns else [""] * len(table)
    names = one_name_each(_text(table, columns["patient_id"]), config.patient_spelling, where)
    if "split" in columns:
        splits = _named_splits(_text(table, columns["split"]), columns["split"], where)
        names.refuse_shared(splits)
    else:
        splits = _read_column(names.keys, _split_of_patient(config))
    return {"path": paths, "patient_id": names.people, "split": splits}, names


def _text(table: pd.DataFrame, column: str) -> list[str]:
    return [cell.strip() for cell in table[column].tolist()]


def _read_column(cells: list[str], read: Callable[[str], Any]) -> list[Any]:
    """Each distinct cell is read once: a million rows have few distinct ones."""
    known = {cell: read(cell) for cell in dict.fromkeys(cells)}
    return [known[cell] for cell in cells]


def _cell_reader(config: DataConfig, variable: Variable, cells: list[str]) -> Callable[[str], Any]:
    """What reads one cell of a column; the column's other cells tell what a comma in a number means."""
    name = variable.name
    if not variable.is_discrete:
        if name in config.labels:
            raise DataError(f"data.labels: '{name}' is continuous in the graph and has no labels")
        decimal = any(_is_decimal(cell) for cell in set(cells))
        return lambda cell: _number(cell, variable, decimal)
    mapping = {label: label for label in variable.labels} | config.labels.get(name, {})
    for value, label in mapping.items():
        if label not in variable.labels:
            raise DataError(
                f"data.labels.{name}: '{value}' is mapped to '{label}', which is no label of the graph; "
                f"{nearest(label, variable.labels)}"
            )
    in_any_case = _without_case(mapping)
    return lambda cell: _label(cell, name, mapping, in_any_case, config.separator, config.other.get(name))


def _without_case(mapping: dict[str, str]) -> dict[str, str]:
    """Values without their case to the label, where they have only one."""
    labels: dict[str, set[str]] = {}
    for value, label in mapping.items():
        labels.setdefault(value.casefold(), set()).add(label)
    return {value: label for value, (label, *others) in labels.items() if not others}


def _label(
    cell: str, name: str, mapping: dict[str, str], in_any_case: dict[str, str], separator: str, other: str | None
) -> str | Unusable:
    members = [member.strip() for member in cell.split(separator)] if separator else [cell]
    read = [mapping.get(member) or in_any_case.get(member.casefold()) for member in members]
    found = list(dict.fromkeys(label for label in read if label is not None))
    if len(found) == 1:
        return found[0]
    if found:
        return Unusable("ambiguous", f"{name}: '{cell}' is {' and '.join(found)}")
    if cell.lower() in BLANK:
        return Unusable("blank value", f"{name} is empty")
    return other or Unusable(OTHER, f"{name}: '{cell}' maps to no label")


def _is_decimal(cell: str) -> bool:
    """Whether the comma in a number can only be a decimal one: 45,5 and 0,125, but not 1,234."""
    found = COMMA.fullmatch(cell)
    return found is not None and (len(found[2]) != 3 or not 1 <= len(found[1].lstrip("0")) <= 3)


def _number(cell: str, variable: Variable, decimal: bool) -> np.float32 | Unusable:
    if cell.lower() in BLANK:
        return Unusable("blank value", f"{variable.name} is empty")
    number = years(cell) if variable.unit in ("years", "year", "y") else None
    if number is None and COMMA.fullmatch(cell):
        if not decimal:
            text = f"{variable.name}: '{cell}' has a comma that may part decimals or thousands; write a point"
            return Unusable("not a number", text)
        cell = cell.replace(",", ".")
    if number is None and NUMBER.fullmatch(cell):
        number = float(cell)
    if number is None:
        band = " is a band; write one number, such as its middle" if is_band(cell) else ""
        return Unusable("not a number", f"{variable.name}: '{cell}'{band}")
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
