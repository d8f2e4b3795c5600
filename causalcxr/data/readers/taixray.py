"""TAIX-Ray: bedside films of intensive care with findings graded by radiologists, each lung by itself. No race."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from causalcxr.data.collection import (
    Collection,
    attribute_read_from,
    cells,
    find_file,
    refuse_race,
    reject_views,
    table_in,
)
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import label_findings, marks
from causalcxr.data.people import numbers, sex
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table_file import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["taixray_source"]

NAME = "TAIX-Ray"
TABLES = ("annotation.csv",)
HEART, UNREADABLE = "HeartSize", "4"  # its grades are 0 to 3
WHOLE = {HEART: "Cardiomegaly", "PulmonaryCongestion": "Pulmonary Congestion"}  # to the names of other collections
BY_SIDE = {
    "PleuralEffusion": "Pleural Effusion",
    "PulmonaryOpacities": "Lung Opacity",
    "Atelectasis": "Atelectasis",
}
FINDINGS = ("No Finding", *WHOLE.values(), *BY_SIDE.values())
GRADES = ("0", "1", "2", "3", "4")
ABSENT, UNKNOWN, PRESENT = range(3)  # in this order: the higher one of both sides is that of `any`
MARKS = np.array(["0", "-1", "1"])
DAYS_A_YEAR = 365.25
OLDEST = 130  # years; a column of days has higher numbers


def taixray_source(config: DataConfig, graph: Graph) -> Source:
    """Columns: sex, age (the table has days), finding, view (all AP). The splits are the official ones.

    A finding is present from `data.present_grade` on, in the lungs of `data.sides`. docs/data/taixray.md has the
    layout. Raises DataError: a missing table or column, Parquet files, another grade, ages that aren't in days, a
    film in several rows, a graph with race.
    """
    root = existing_root(config)
    refuse_race(NAME, config, graph)
    path = _table(root)
    entries = read_table(path)
    films = cells(entries, "UID", path)
    if (again := films.duplicated()).any():
        film = films[int(again.argmax())]
        raise DataError(f"table '{path}' has '{film}' in two rows; keep the rows of one Fold")
    unusable: dict[int, Unusable] = {}
    views = pd.Series("AP", index=entries.index, dtype=str)
    reject_views(unusable, views, config)
    table = pd.DataFrame(
        {
            "path": "images/" + films + ".png",
            "patient_id": cells(entries, "PatientID", path),
            "view": views,
            "sex": sex(cells(entries, "Sex", path)),
            "age": _years(cells(entries, "Age", path), path),
            "split": cells(entries, "Split", path),
        }
    )
    about = {"splits": "official"}
    if attribute_read_from("finding", config, graph):
        said = marks(_findings(entries, path, config), f"table '{path}'")
        table["finding"] = label_findings(unusable, said, FINDINGS, config, graph, NAME)
        about |= {"present from grade": str(config.present_grade), "sides": config.sides}
    return Collection(NAME, root, [path], table, unusable, about).source(config, graph)


def _table(root: Path) -> Path:
    if not find_file([root], TABLES) and next(root.glob("**/*.parquet"), None):
        raise DataError(
            f"'{root}' has Parquet files; write them out as {TABLES[0]} and images/UID.png (docs/data/taixray.md)"
        )
    return table_in([root], TABLES, "taixray")


def _years(days: pd.Series, path: Path) -> pd.Series:
    """Ages in days as years; other text is kept, and rejected later. Raises DataError: all are years already."""
    known = numbers(days)
    if not np.isnan(known).all() and np.nanmax(known) <= OLDEST:
        raise DataError(
            f"table '{path}': the highest 'Age' is {np.nanmax(known):g}; expected ages in days, as published"
        )
    years = pd.Series(np.nan_to_num(known) / DAYS_A_YEAR).map("{:.2f}".format)
    return days.where(np.isnan(known), years)


def _findings(entries: pd.DataFrame, path: Path, config: DataConfig) -> Mapping[str, pd.Series]:
    """Each finding as marks 1, 0 and -1 (not known); No Finding is positive where every grade is 0."""
    found, grades = {}, []
    for column, finding in WHOLE.items():
        grades.append(_grades(entries, column, path))
        found[finding] = _present(grades[-1], config)
    for column, finding in BY_SIDE.items():
        right, left = (_grades(entries, f"{column}_{side}", path) for side in ("Right", "Left"))
        grades += [right, left]
        sides = {"right": _present(right, config), "left": _present(left, config)}
        sides["any"] = np.maximum(sides["right"], sides["left"])
        sides["both"] = np.minimum(sides["right"], sides["left"])
        found[finding] = sides[config.sides]
    every = np.stack(grades)
    nothing = np.where((every > 0).any(axis=0), ABSENT, np.where((every < 0).any(axis=0), UNKNOWN, PRESENT))
    return {name: pd.Series(MARKS[codes], dtype=str) for name, codes in ({"No Finding": nothing} | found).items()}


def _grades(entries: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """0 to 4, and -1 where the film couldn't be read or nothing stands. Raises DataError: any other text."""
    written = cells(entries, column, path).str.removesuffix(".0")
    if odd := sorted(set(written) - {*GRADES, "", "-1"}):
        raise DataError(
            f"table '{path}': '{odd[0]}' in column '{column}'; expected a grade from 0 to 4 or nothing"
        )
    unknown = written.isin(["", "-1"] + [UNREADABLE] * (column == HEART))
    return written.where(~unknown, "-1").astype(int).to_numpy()


def _present(grades: np.ndarray, config: DataConfig) -> np.ndarray:
    return np.where(grades < 0, UNKNOWN, np.where(grades >= config.present_grade, PRESENT, ABSENT))
