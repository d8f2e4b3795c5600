"""NIH ChestX-ray14: frontal images with sex, age and findings. Race isn't recorded."""

from pathlib import Path

import numpy as np
import pandas as pd

from causalcxr.data.collection import Collection, cells, find_file, locate, refuse_race, reject_views, table_in
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import label_findings, lists
from causalcxr.data.people import age_in_years, person, sex
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import patient_uniform, read_table
from causalcxr.graph import Graph

__all__ = ["nih_source"]

NAME = "NIH ChestX-ray14"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = ("train_val_list.txt", "test_list.txt")
RENAMED = {"Effusion": "Pleural Effusion"}  # to the name that the other collections use
FINDINGS = (
    *("No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)


def nih_source(config: DataConfig, graph: Graph) -> Source:
    """Columns: sex, age, finding, view. docs/data/nih.md has the layout and the counts.

    The test split is the official one; validation is drawn by patient from the rest. Without the two lists all
    splits are drawn by patient. Raises DataError: a missing table or column, a graph with race.
    """
    root = existing_root(config)
    refuse_race(NAME, config, graph)
    path = table_in([root], TABLES, "nih")
    entries = read_table(path)
    names, patients = cells(entries, "Image Index", path), cells(entries, "Patient ID", path)
    sexes = "Patient Sex" if "Patient Sex" in entries.columns else "Patient Gender"
    unusable: dict[int, Unusable] = {}
    views = cells(entries, "View Position", path)
    reject_views(unusable, views, config)
    said = lists(cells(entries, "Finding Labels", path), RENAMED)
    folders = [root / "images", *sorted(root.glob("images_0*/images")), *sorted(root.glob("images_0*"))]
    table = pd.DataFrame(
        {
            "path": locate("images/" + names, root, folders),
            "patient_id": patients,
            "view": views,
            "sex": sex(cells(entries, sexes, path)),
            "age": age_in_years(cells(entries, "Patient Age", path)),
            "finding": label_findings(unusable, said, FINDINGS, config, graph, NAME),
        }
    )
    read = [path]
    if find_file([root], LISTS):
        read += [table_in([root], [name], "nih") for name in LISTS]
        table["split"] = _split(names, patients, read[1], read[2], config)
    about = {"splits": "by patient" if len(read) == 1 else "official test, validation by patient"}
    return Collection(NAME, root, read, table, unusable, about).source(config, graph)


def _split(names: pd.Series, patients: pd.Series, train_val: Path, test: Path, config: DataConfig) -> pd.Series:
    """The official test images; of the official others those of some patients are for validation."""
    written = {patient: person(patient, config.patient_spelling) for patient in patients.unique()}
    drawn = {patient: patient_uniform(config.split_seed, name) for patient, name in written.items()}
    rest = np.where(patients.map(drawn) < config.validation_fraction, "val", "train")
    listed = np.where(names.isin(train_val.read_text("utf-8").split()), rest, "")
    return pd.Series(np.where(names.isin(test.read_text("utf-8").split()), "test", listed), dtype=str)
