"""NIH ChestX-ray14 as published: two tables, two layouts of folders, official lists, an age of 413."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.data.images import read_image
from causalcxr.data.table import patient_uniform
from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.support.errors import DataError

IMAGES = [  # file, findings, patient, age, sex, view, in test_list.txt, what becomes of it
    ("00000001_000.png", "Cardiomegaly", 1, "58", "M", "PA", False, "other finding"),
    ("00000001_001.png", "Cardiomegaly|Effusion", 1, "58", "M", "AP", False, "kept"),
    ("00000002_000.png", "No Finding", 2, "81", "M", "PA", False, "kept"),
    ("00000003_000.png", "Hernia", 3, "81", "F", "PA", True, "other finding"),
    ("00000003_001.png", "Effusion", 3, "74", "F", "PA", True, "kept"),
    ("00005567_000.png", "Effusion|Pneumonia", 5567, "412", "M", "AP", False, "out of range"),
    ("00011973_002.png", "No Finding", 11973, "413", "F", "PA", False, "out of range"),
    ("00028855_000.png", "No Finding", 28855, "1", "F", "AP", True, "kept"),
    ("00030000_000.png", "No Finding", 30000, "40", "", "PA", False, "blank value"),
    ("00030001_000.png", "Effusion", 30001, "40", "F", "LATERAL", False, "other view"),
    *[
        (f"000200{i:02}_000.png", "No Finding", 20000 + i, str(20 + i), "F", "PA", False, "kept")
        for i in range(20)
    ],
]
REJECTED = {"other finding": 2, "out of range": 2, "blank value": 1, "other view": 1}


@pytest.fixture
def nih(tmp_path, draw):
    """Make a copy of the collection: its table of 2017 or 2020, its images in one folder or in twelve."""

    def make(table="Data_Entry_2017_v2020.csv", folders=("images",), lists=True, years="", name="root"):
        root = tmp_path / name
        header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        comma = "," if table == "Data_Entry_2017.csv" else ""  # every line of the older one ends in a comma
        lines = [header + "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]" + comma]
        for i, (file, findings, patient, age, sex, view, _, _) in enumerate(IMAGES):
            draw(root / folders[i % len(folders)] / file, i)
            age = f"{int(age):03}Y" if years else age
            lines.append(f"{file},{findings},0,{patient},{age},{sex},{view},2682,2749,0.143,0.143{comma}")
        (root / table).write_text("\n".join(lines) + "\n")
        if lists:
            for part, is_test in {"train_val_list.txt": False, "test_list.txt": True}.items():
                (root / part).write_text("\n".join(row[0] for row in IMAGES if row[6] == is_test))
        return DataConfig(source="nih", root=str(root), cache=str(tmp_path / "cache"), size=16)

    return make


def test_every_image_is_kept_or_rejected_for_its_reason(nih, check_every_row):
    config = nih()
    cohort = open_cohort(config, load_graph("chest_without_race"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    assert cohort.manifest["row"].tolist() == [i for i, row in enumerate(IMAGES) if row[-1] == "kept"]
    shown = cohort.manifest[["path", "patient_id", "sex", "age", "finding"]].values.tolist()[:2]
    assert shown == [
        ["images/00000001_001.png", "1", "male", 58, "Pleural Effusion"],
        ["images/00000002_000.png", "2", "male", 81, "No Finding"],
    ]
    assert np.array_equal(cohort.images[0], read_image(Path(config.root, shown[0][0]), 16, 1))


def test_the_test_split_is_the_official_one_and_validation_is_by_patient(nih):
    config = nih()
    cohort = open_cohort(config, load_graph("chest_without_race"))
    manifest = cohort.manifest.set_index("patient_id")["split"]
    assert set(manifest[manifest == "test"].index) == {"3", "28855"}
    for patient, split in manifest[manifest != "test"].items():
        assert split == ("val" if patient_uniform(0, str(patient)) < config.validation_fraction else "train")
    assert cohort.source["splits"] == "official test, validation by patient"


@pytest.mark.parametrize(
    "folders",
    [("images",), ("images_001/images", "images_002/images", "images_012/images"), ("images_001", "images_002")],
)
@pytest.mark.parametrize(("table", "years"), [("Data_Entry_2017.csv", "Y"), ("Data_Entry_2017_v2020.csv", "")])
def test_both_tables_and_all_layouts_agree(nih, table, years, folders):
    first = open_cohort(nih(), load_graph("chest_without_race"))
    other = open_cohort(nih(table, folders, years=years, name="other"), load_graph("chest_without_race"))
    assert np.array_equal(first.images, other.images)
    assert first.manifest.drop(columns="path").equals(other.manifest.drop(columns="path"))
    assert first.rejected == other.rejected
    assert (other.manifest["path"].str.rpartition("/")[0].isin(folders)).all()


def test_without_the_lists_splits_are_drawn_by_patient(nih):
    described = json.loads(
        (prepare(nih(lists=False), load_graph("chest_without_race")) / "cohort.json").read_text()
    )
    assert described["source"]["splits"] == "by patient" and sum(described["kept"].values()) == 24


def test_half_of_the_lists_is_an_error(nih):
    config = nih()
    Path(config.root, "train_val_list.txt").unlink()
    with pytest.raises(DataError, match=r"no train_val_list.txt .*docs/data/nih.md"):
        prepare(config, load_graph("chest_without_race"))
    Path(config.root, "test_list.txt").rename(Path(config.root, "train_val_list.txt"))
    with pytest.raises(DataError, match=r"no test_list.txt"):
        prepare(config, load_graph("chest_without_race"))


def test_an_image_in_neither_list_is_counted(nih, check_every_row):
    config = nih()
    listed = Path(config.root, "test_list.txt")
    listed.write_text(listed.read_text().replace("00000003_001.png", ""))
    check_every_row(
        open_cohort(config, load_graph("chest_without_race")), len(IMAGES), REJECTED | {"blank value": 2}
    )


def test_race_is_not_recorded(nih):
    with pytest.raises(DataError, match=r"NIH ChestX-ray14 doesn't record race; .*graph=chest_without_race"):
        prepare(nih(), load_graph("chest"))


def test_another_disease_by_its_published_name(nih):
    config = nih()
    config.labels = {"finding": {"Cardiomegaly": "Pleural Effusion", "No Finding": "No Finding"}}
    manifest = open_cohort(config, load_graph("chest_without_race")).manifest
    assert manifest["row"][manifest["finding"] == "Pleural Effusion"].tolist() == [0, 1]


@pytest.mark.realdata
@pytest.mark.skipif("CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA does not name the real data")
def test_counts_of_the_whole_collection(tmp_path):
    """Its real table, put back under the published column names; the images are not needed for the counts."""
    real = Path(os.environ["CAUSALCXR_DATA"], "real-cxr/nih_attributes.csv.gz")
    table = pd.read_csv(real, dtype=str, keep_default_na=False)
    published = {
        "sex": "Patient Gender",
        "age": "Patient Age",
        "view": "View Position",
        "finding": "Finding Labels",
    }
    table = table.rename(columns=published | {"patient_id": "Patient ID"})
    table["Image Index"] = table["image_id"] + ".png"
    table.to_csv(tmp_path / "Data_Entry_2017_v2020.csv", index=False)
    declared = load_graph("chest_without_race").to_dict()
    declared["variables"].pop("image")
    config = DataConfig(source="nih", root=str(tmp_path), cache=str(tmp_path / "cache"))
    cohort = open_cohort(config, graph_from_dict(declared))
    assert cohort.manifest["finding"].value_counts().to_dict() == {"No Finding": 60361, "Pleural Effusion": 13317}
    assert cohort.rejected == {"other finding": 112120 - 60361 - 13317}
