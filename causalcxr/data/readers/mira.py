"""Images prepared for MIRA's code, with the table that it reads: race_label, sex_label, disease_label, age."""

from pathlib import Path

import pandas as pd

from causalcxr.data.collection import Collection, attribute_read_from, cells
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import label_findings, lists
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import SPLITS, read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["mira_source"]

NAME = "MIRA's table"
CODED = {"sex": "sex_label", "race": "race_label", "finding": "disease_label"}
PEOPLE = ("subject_id", "patient_id")  # of its tables of MIMIC-CXR and CheXpert


def mira_source(config: DataConfig, graph: Graph) -> Source:
    """`data.table`, with a split column; or three tables `NAME.{train,val,test}.csv` when it is `NAME.csv`.

    Codes such as 0, 1, 2 have the meaning that `data.labels` gives them, never an assumed one.
    Raises DataError: a missing table or column, codes without a meaning.
    """
    root = existing_root(config)
    read = _tables(root, config.table)
    rows = pd.concat([_read_part(path, split) for path, split in read.items()], ignore_index=True)
    unusable: dict[int, Unusable] = {}
    for column in CODED:
        _check_codes(pd.Series(rows[column]), column, config, graph)
    said = lists(pd.Series(rows["finding"]), {})
    known = {name for mentions in said.distinct for name in mentions.positive}
    rows["finding"] = label_findings(unusable, said, known, config, graph, NAME)
    return Collection(NAME, root, list(read), rows, unusable).source(config, graph)


def _tables(root: Path, table: str) -> dict[Path, str]:
    """The tables to read and the split of each, blank where a column has it."""
    path = root / table
    if path.is_file():
        return {path: ""}
    parts = {path.with_suffix(f".{split}.csv"): split for split in SPLITS}
    if missing := [part.name for part in parts if not part.is_file()]:
        raise DataError(
            f"no table '{path}', nor {', '.join(missing)} beside it; set data.table (docs/data/mira.md)"
        )
    return parts


def _read_part(path: Path, split: str) -> pd.DataFrame:
    table = read_table(path)
    person = next((name for name in PEOPLE if name in table.columns), PEOPLE[0])
    columns = {"path": "path_preproc", "patient_id": person, "age": "age"} | CODED
    part = pd.DataFrame({ours: cells(table, theirs, path) for ours, theirs in columns.items()})
    for column in CODED:  # pandas writes whole numbers beside missing ones as 1.0
        part[column] = part[column].str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    if split:
        part["split"] = split
    elif "split" in table.columns:
        part["split"] = cells(table, "split", path)
    return part


def _check_codes(recorded: pd.Series, column: str, config: DataConfig, graph: Graph) -> None:
    attribute = attribute_read_from(column, config, graph)
    if attribute is None:
        return
    meanings = config.labels.get(attribute.name) or attribute.labels
    codes = sorted(recorded.unique())
    if not set(codes) & set(meanings):
        example = "{" + ", ".join(f"'{code}': ..." for code in codes[:9]) + "}"
        raise DataError(
            f"{CODED[column]} has the values {', '.join(codes[:9])}, and none has a meaning; "
            f"set data.labels.{attribute.name}={example} to labels of the graph ({', '.join(attribute.labels)})"
        )
