"""CheXpert, full or small, its people described by the demographics that are published apart."""

from pathlib import Path

import numpy as np
import pandas as pd

from causalcxr.data.collection import (
    Collection,
    attribute_read_from,
    cells,
    find_file,
    reject,
    reject_other_races,
    rows_of,
    table_in,
)
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import CHEXPERT_FINDINGS, label_findings, marks
from causalcxr.data.people import numbers, race, sex
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table_file import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["chexpert_source", "reject_unknown_ages"]

NAME = "CheXpert"
FOLDERS = ("CheXpert-v1.0", "CheXpert-v1.0-small")
TABLES = {"train": ["train.csv"], "val": ["valid.csv"], "test": ["test.csv", "test_labels.csv"]}
DEMOGRAPHICS = ("CHEXPERT DEMO.csv", "CHEXPERT_DEMO.csv", "CHEXPERT DEMO.xlsx", "CHEXPERT_DEMO.xlsx")
PATH = r"((?:train|valid|val|test)/(patient\d+)/([^/]+)/?.*)$"  # the table may give the name of the folder before
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)


def chexpert_source(config: DataConfig, graph: Graph) -> Source:
    """Frontal images. Columns: sex, race, age, finding, view, ethnicity. docs/data/chexpert.md has the layout.

    The splits are the official ones if the table of the test set is there, else drawn by patient.
    Raises DataError: a missing table or column, a mark that isn't one; or openpyxl is needed and isn't installed.
    """
    root = _images_folder(existing_root(config))
    read = [table_in([root], TABLES["train"], "chexpert")]
    read += [path for names in (TABLES["val"], TABLES["test"]) if (path := find_file([root], names))]
    rows = pd.concat([_read_part(path) for path in read], ignore_index=True)
    columns = {name: pd.Series(rows[name]) for name in rows.columns}
    named = _image_paths(columns["Path"], root)
    unusable: dict[int, Unusable] = {}
    _reject_other_views(unusable, columns, config)
    people = {"sex": columns["Sex"], "age": columns["Age"]}
    if attribute_read_from("race", config, graph) or bool((people["age"] == "").any()):
        read.append(_find_demographics(root))
        people = _with_demographics(people, named["patient_id"], read[-1], unusable)
        reject_other_races(unusable, people["race"], config, graph)
    said = marks({finding: columns[finding] for finding in CHEXPERT_FINDINGS}, f"{NAME} in '{root}'")
    finding = label_findings(unusable, said, CHEXPERT_FINDINGS, config, graph, NAME)
    reject_unknown_ages(unusable, people["age"], config, graph)
    table = pd.DataFrame(
        named | people | {"sex": sex(people["sex"]), "view": columns["AP/PA"], "finding": finding}
    )
    official = any(path.name.startswith(tuple(TABLES["test"])) for path in read)
    if official:
        table["split"] = columns["split"]
    about = {"splits": "official" if official else "by patient"}
    return Collection(NAME, root, read, table, unusable, about).source(config, graph)


def reject_unknown_ages(unusable: dict[int, Unusable], ages: pd.Series, config: DataConfig, graph: Graph) -> None:
    """Reject an age of 0, which means unknown here, also where the graph's range begins at 0."""
    if attribute := attribute_read_from("age", config, graph):
        detail = f"{attribute.name}: '{{}}' means unknown in this collection"
        reject(unusable, numbers(ages) == 0, "out of range", detail, ages)


def _images_folder(root: Path) -> Path:
    """The folder of train.csv: the root, or the one collection in it."""
    if find_file([root], TABLES["train"]):
        return root
    there = [root / name for name in FOLDERS if find_file([root / name], TABLES["train"])]
    if len(there) > 1:
        raise DataError(f"data.root: '{root}' has {' and '.join(FOLDERS)}; name one of them as root")
    return there[0] if there else root


def _read_part(path: Path) -> pd.DataFrame:
    """The published test table has findings only; its people are in the demographics, its views in file names."""
    table = read_table(path)
    split = next(split for split, names in TABLES.items() if path.name.startswith(tuple(names)))
    needed = ("Path", *CHEXPERT_FINDINGS) if split == "test" else COLUMNS
    names = [name for name in COLUMNS if name in needed or name in table.columns]
    part = pd.DataFrame({name: cells(table, name, path) for name in names})
    if "Frontal/Lateral" not in names:
        frontal = cells(table, "Path", path).str.contains("_frontal", regex=False)
        part["Frontal/Lateral"] = np.where(frontal, "Frontal", "Lateral")
    return part.reindex(columns=list(COLUMNS), fill_value="").assign(split=split, projected="AP/PA" in names)


def _image_paths(written: pd.Series, root: Path) -> dict[str, pd.Series]:
    parts = written.str.extract(PATH)
    path, patient, study = (pd.Series(parts[place]) for place in range(3))
    if path.isna().any():
        odd = written.tolist()[int(path.isna().argmax())]
        raise DataError(f"{NAME} in '{root}': '{odd}' in column 'Path' isn't like 'train/patient00001/study1/...'")
    return {"path": path, "patient_id": patient, "study_id": study}


def _reject_other_views(unusable: dict[int, Unusable], columns: dict[str, pd.Series], config: DataConfig) -> None:
    if not config.views:
        return
    side, view = columns["Frontal/Lateral"], columns["AP/PA"]
    reject(unusable, side != "Frontal", "other view", "view: '{}'", side)
    other = columns["projected"] & ~view.isin(config.views)  # the test table may not have the column
    reject(unusable, other, "other view", "view: '{}' is not in data.views", view)


def _with_demographics(
    people: dict[str, pd.Series], patients: pd.Series, path: Path, unusable: dict[int, Unusable]
) -> dict[str, pd.Series]:
    """Race and ethnicity, and sex and age where the images' tables have none."""
    recorded = read_table(path)
    rows = rows_of(cells(recorded, "PATIENT", path), patients, path)
    reject(unusable, rows < 0, "no record", "patient '{}' is not in the demographics", patients)
    names = {"sex": "GENDER", "age": "AGE_AT_CXR", "race": "PRIMARY_RACE", "ethnicity": "ETHNICITY"}
    found = {ours: cells(recorded, name, path).iloc[rows].reset_index(drop=True) for ours, name in names.items()}
    filled = {name: known.where(known != "", found[name]) for name, known in people.items()}
    return found | filled | {"race": race(found["race"])}


def _find_demographics(root: Path) -> Path:
    places = [root, root.parent, *sorted(root.glob("chexpertdemo*")), *sorted(root.parent.glob("chexpertdemo*"))]
    return table_in(places, DEMOGRAPHICS, "chexpert")
