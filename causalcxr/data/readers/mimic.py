"""MIMIC-CXR-JPG, its people described by MIMIC-IV: sex, age and recorded race."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.data.collection import (
    Collection,
    attribute_read_from,
    cells,
    find_file,
    reject,
    reject_other_races,
    reject_views,
    rows_of,
    table_in,
)
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import CHEXPERT_FINDINGS, Statements, label_findings, marks, replaced
from causalcxr.data.people import numbers, one_race_each, sex, whole_years
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["mimic_source"]

NAME = "MIMIC-CXR-JPG"
VERSIONS = ("2.0.0", "2.1.0")  # in the names of tables; those of 2.1.0 are called 2.0.0 but for the test labels
HAND_LABELS = "test-set-labeled"
RENAMED = {"Lung Opacity": "Airspace Opacity"}  # in the hand-read labels
NO_RECORD = "subject '{}' is not in MIMIC-IV"
RACE_COLUMNS = ("race", "ethnicity")  # from MIMIC-IV 2.0 on, and before


def mimic_source(config: DataConfig, graph: Graph) -> Source:
    """Frontal images of people with one recorded race. Columns: sex, race, age, finding, view.

    Ages are those at the study: `anchor_age + year of the study - anchor_year`. The splits are the official ones
    if their table is there, else drawn by patient. docs/data/mimic.md has the layout and the counts.
    Raises DataError: a missing table or column, a mark or key that isn't one.
    """
    root = existing_root(config)
    path = table_in([root], _names("metadata"), "mimic")
    metadata = read_table(path)
    subjects, studies, images = (cells(metadata, name, path) for name in ("subject_id", "study_id", "dicom_id"))
    views = cells(metadata, "ViewPosition", path)
    read, unusable = [path], {}
    table = pd.DataFrame(
        {
            "path": "files/p" + subjects.str[:2] + "/p" + subjects + "/s" + studies + "/" + images + ".jpg",
            "patient_id": subjects,
            "study_id": studies,
            "view": views,
        }
    )
    reject_views(unusable, views, config)
    table["sex"], table["age"] = _sex_and_age(root, subjects, cells(metadata, "StudyDate", path), read, unusable)
    if attribute_read_from("race", config, graph):
        table["race"] = races = _race(root, subjects, read, unusable)
        reject_other_races(unusable, races, config, graph)
    about = {"splits": "by patient"}
    if splits := find_file([root], _names("split")):
        table["split"], about["splits"] = _split(splits, images), "official"
    if attribute_read_from("finding", config, graph):
        tested = (table["split"] == "test").to_numpy() if splits else np.zeros(len(table), dtype=bool)
        said, rows = _labels(root, studies, read)
        if config.hand_labels != "ignore" and (hand := find_file([root], _names(HAND_LABELS))):
            replaces = tested if config.hand_labels == "test" else np.ones(len(table), dtype=bool)
            said, rows = _hand_labels(hand, studies, said, rows, replaces, about)
            read.append(hand)
        reject(unusable, rows < 0, "no label", "study '{}' has no row in the table of labels", studies)
        table["finding"] = label_findings(unusable, said, CHEXPERT_FINDINGS, config, graph, NAME)
    if splits:
        read.append(splits)
    return Collection(NAME, root, read, table, unusable, about).source(config, graph)


def _names(*kinds: str) -> list[str]:
    return [f"mimic-cxr-{version}-{kind}.csv" for kind in kinds for version in VERSIONS]


def _sex_and_age(
    root: Path, subjects: pd.Series, dates: pd.Series, read: list[Path], unusable: dict[int, Unusable]
) -> tuple[pd.Series, pd.Series]:
    path = _mimic_iv_table(root, "patients.csv")
    read.append(path)
    patients = read_table(path)
    rows = rows_of(cells(patients, "subject_id", path), subjects, path)
    reject(unusable, rows < 0, "no record", NO_RECORD, subjects)
    people = patients.iloc[rows].reset_index(drop=True)
    age = numbers(cells(people, "anchor_age", path)) + numbers(dates.str[:4])
    age -= numbers(cells(people, "anchor_year", path))
    return sex(cells(people, "gender", path)), whole_years(age)


def _race(root: Path, subjects: pd.Series, read: list[Path], unusable: dict[int, Unusable]) -> pd.Series:
    path = _mimic_iv_table(root, "admissions.csv")
    read.append(path)
    admissions = read_table(path)
    column = next((name for name in RACE_COLUMNS if name in admissions.columns), None)
    if column is None:
        raise DataError(f"table '{path}' has no column 'race' (MIMIC-IV from 2.0 on) nor 'ethnicity' (before)")
    people = cells(admissions, "subject_id", path)
    agreed, differing = one_race_each(people, cells(admissions, column, path))
    entries = subjects.map(differing)
    reject(unusable, entries.notna(), "conflicting race", "race: recorded as {}", entries)
    reject(unusable, ~subjects.isin(people), "no record", NO_RECORD, subjects)
    return subjects.map(agreed).fillna("")


def _labels(root: Path, studies: pd.Series, read: list[Path]) -> tuple[Statements, np.ndarray]:
    """What a labeller says of every image, and the row of its table, -1 where it has none."""
    path = table_in([root], _names("chexpert", "negbio"), "mimic")
    read.append(path)
    labels = read_table(path)
    said = marks({finding: cells(labels, finding, path) for finding in CHEXPERT_FINDINGS}, f"table '{path}'")
    rows = rows_of(cells(labels, "study_id", path), studies, path)
    return Statements(said.which[rows], said.distinct), rows


def _hand_labels(
    path: Path,
    studies: pd.Series,
    said: Statements,
    rows: np.ndarray,
    replaces: np.ndarray,
    about: dict[str, Any],
) -> tuple[Statements, np.ndarray]:
    """The same, where people who read the reports replace the labeller; their table has no subjects."""
    labels = read_table(path)
    ours = {
        finding: RENAMED[finding] if finding in RENAMED and finding not in labels.columns else finding
        for finding in CHEXPERT_FINDINGS
    }
    columns = {finding: cells(labels, name, path) for finding, name in ours.items()}
    by_hand = marks(columns, f"table '{path}'")
    known = rows_of(cells(labels, "study_id", path), studies, path)
    taken = np.where(replaces, known, -1)
    about["labels read by hand"] = f"{int((taken >= 0).sum()):,} films"
    statements = replaced(said, np.arange(len(studies)), by_hand, taken)
    return statements, np.where(taken < 0, rows, taken)


def _split(path: Path, images: pd.Series) -> pd.Series:
    table = read_table(path)
    rows = rows_of(cells(table, "dicom_id", path), images, path)
    splits = cells(table, "split", path).to_numpy(dtype=object)
    return pd.Series(np.where(rows < 0, "", splits[rows]), dtype=str)


def _mimic_iv_table(root: Path, name: str) -> Path:
    """In the root, or in the one version of MIMIC-IV in or beside it. Raises DataError: in several, or in none."""
    if own := find_file(_modules(root), [name]):
        return own
    bases = [base for folder in (root, root.parent, root.parent.parent) for base in _versions(folder)]
    found = [path for base in bases if (path := find_file(_modules(base), [name]))]
    if len(found) > 1:
        several = " and ".join(f"'{path}'" for path in found)
        raise DataError(f"{several}: which MIMIC-IV? Copy or link the tables of one into '{root}'")
    return found[0] if found else table_in([*_modules(root), *bases], [name], "mimic")


def _modules(base: Path) -> list[Path]:
    return [base, base / "core", base / "hosp"]


def _versions(folder: Path) -> list[Path]:
    """Folders such as mimiciv, mimic-iv-3.1 and mimiciv/2.2."""
    named = sorted({*folder.glob("mimiciv*"), *folder.glob("mimic-iv*")})
    return [*named, *(version for base in named for version in sorted(base.glob("[0-9]*")))]
