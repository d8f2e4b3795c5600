"""CheXpert Plus: CheXpert's films as PNG, with a table of people and one of three files of findings."""

import gzip
import json
import zlib
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
    reject_views,
    rows_of,
    table_in,
)
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import (
    CHEXPERT_FINDINGS,
    Statements,
    label_findings,
    marks,
    one_mark_a_study,
    prevalence,
)
from causalcxr.data.people import race, sex
from causalcxr.data.readers.chexpert import reject_unknown_ages
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table_file import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["chexpert_plus_source"]

NAME = "CheXpert Plus"
TABLES = ("df_chexpert_plus_240401.csv",)
LABELS = ("findings_fixed.json", "impression_fixed.json", "report_fixed.json")
LABEL_FOLDERS = ("chexbert_labels", "labels", "label")
IN_PATH = r"((?:train|valid|val|test)/(patient\d+)/([^/]+)/.+)$"
UNFINISHED = ".azDownload-*-{}"  # how the downloading program calls a file until it is whole
DIFFERING = "studies whose films have different labels, read by data.study_labels={}"


def chexpert_plus_source(config: DataConfig, graph: Graph) -> Source:
    """Frontal images. Columns: sex, race, ethnicity, age, finding, view, study_id. Splits are drawn by patient.

    `data.label_file` names the findings; docs/data/chexpert_plus.md says how they differ.
    Raises DataError: no label file named, a missing table or column, a line that isn't JSON, an odd mark.
    """
    root = existing_root(config)
    path = table_in([root], TABLES, "chexpert_plus")
    rows = read_table(path)
    written = cells(rows, "path_to_image", path)
    parts = _parts(written, path)
    unusable: dict[int, Unusable] = {}
    side, views = cells(rows, "frontal_lateral", path), cells(rows, "ap_pa", path)
    if config.views:
        reject(unusable, side != "Frontal", "other view", "view: '{}'", side)
    reject_views(unusable, views, config)
    ages = cells(rows, "age", path)
    table = pd.DataFrame(
        {
            "path": _image_files(parts["path"], root, unusable),
            "patient_id": cells(rows, "deid_patient_id", path),
            "study_id": parts["study"],
            "view": views,
            "sex": sex(cells(rows, "sex", path)),
            "age": ages,
        }
    )
    if attribute_read_from("race", config, graph):
        table["race"] = races = race(cells(rows, "race", path))
        reject_other_races(unusable, races, config, graph)
    if "ethnicity" in rows.columns:
        table["ethnicity"] = cells(rows, "ethnicity", path)
    read, about, noted = [path], {"splits": "by patient"}, {}
    if attribute_read_from("finding", config, graph):
        file = _label_file(root, config)
        read.append(file)
        said, known, differing = _findings(file, parts, table, config.study_labels)
        reject(unusable, known < 0, "no label", "'{}' has no line in the file of labels", written)
        table["finding"] = label_findings(unusable, said, CHEXPERT_FINDINGS, config, graph, NAME)
        about |= {
            "labels": file.name,
            "study labels": config.study_labels,
            "prevalence": prevalence(Statements(said.which[known >= 0], said.distinct)),
        }
        noted[DIFFERING.format(config.study_labels)] = differing
    reject_unknown_ages(unusable, ages, config, graph)
    return Collection(NAME, root, read, table, unusable, about, noted).source(config, graph)


def _parts(written: pd.Series, where: Path) -> dict[str, pd.Series]:
    """The path below the name of the folder, its patient and its study."""
    parts = written.str.extract(IN_PATH)
    if (odd := parts[0].isna()).any():
        text = written.tolist()[int(odd.argmax())]
        raise DataError(f"table '{where}': '{text}' in column 'path_to_image' isn't like 'train/patient00001/...'")
    return {name: pd.Series(parts[place]) for place, name in enumerate(("path", "patient", "study"))}


def _image_files(paths: pd.Series, root: Path, unusable: dict[int, Unusable]) -> pd.Series:
    """Where each film lies: below PNG/ as it is unpacked, or below the root; as .png, or as the table says."""
    folders = [folder for folder in ("PNG", "") if (root / folder).is_dir()]
    found = []
    for row, path in enumerate(paths.tolist()):
        png = Path(path).with_suffix(".png").as_posix()
        places = [f"{folder}/{name}".lstrip("/") for folder in folders for name in dict.fromkeys((png, path))]
        there = next((place for place in places if (root / place).is_file()), None)
        if there is None and any(_unfinished(root / place) for place in places):
            unusable.setdefault(row, Unusable("partial download", f"'{places[0]}' is still .azDownload-..."))
        found.append(there or places[0])
    return pd.Series(found, dtype=str)


def _unfinished(file: Path) -> bool:
    return (
        next(file.parent.glob(UNFINISHED.format(file.name)), None) is not None if file.parent.is_dir() else False
    )


def _label_file(root: Path, config: DataConfig) -> Path:
    if config.label_file not in LABELS:
        got = f"'{config.label_file}'" if config.label_file else "empty"
        raise DataError(
            f"data.label_file is {got}; name one of {', '.join(LABELS)}, which differ in what is positive "
            "(docs/data/chexpert_plus.md)"
        )
    places = [root, *(root / folder for folder in LABEL_FOLDERS)]
    if file := find_file(places, [config.label_file]):
        return file
    return table_in(places, [config.label_file], "chexpert_plus")


def _findings(
    file: Path, parts: dict[str, pd.Series], table: pd.DataFrame, how: str
) -> tuple[Statements, pd.Series, int]:
    """What is said of each film, the line that says it (-1: none), and how many studies had several labels."""
    labels = _read_labels(file)
    names = pd.Series(labels["path_to_image"].str.extract(IN_PATH)[0], name="path_to_image")
    known = pd.Series(rows_of(names, parts["path"], file))
    said = {finding: labels[finding].iloc[known].reset_index(drop=True) for finding in CHEXPERT_FINDINGS}
    named = table["patient_id"] + "/" + parts["study"]  # a film without labels is a study of its own
    studies = pd.Series(np.where(known >= 0, named, known.index.astype(str)), dtype=str)
    agreed, differing = one_mark_a_study(said, studies, how)
    return marks(agreed, f"'{file}'"), known, differing


def _read_labels(file: Path) -> pd.DataFrame:
    """One JSON object a line, as text cells; null is a finding that isn't mentioned."""
    wanted = ("path_to_image", *CHEXPERT_FINDINGS)
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    try:
        content = file.read_bytes()
        text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"'{file}' can't be read: {' '.join(str(error).split())}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            for name in wanted:
                columns[name].append("" if said[name] is None else str(said[name]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"'{file}', line {number}: expected one JSON object with {error}") from None
    if not columns["path_to_image"]:
        raise DataError(f"'{file}' is empty; download it again")
    return pd.DataFrame(columns, dtype=str)
