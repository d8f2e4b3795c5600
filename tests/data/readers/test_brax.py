"""BRAX, laid out as published: ages in bands, an open band, accession numbers that two patients share."""

from pathlib import Path

import pandas as pd
import pytest

from causalcxr.data import DataConfig, open_cohort
from causalcxr.data.findings import CHEXPERT_FINDINGS
from causalcxr.data.people import ages_of_bands
from causalcxr.graph import load_graph
from causalcxr.support.errors import ConfigError, DataError

EFFUSION, HEALTHY, UNSURE = {"Pleural Effusion": "1"}, {"No Finding": "1.0"}, {"Pleural Effusion": "-1"}
IMAGES = [  # patient, sex, age, accession, view, labels, what becomes of it
    ("id_a1", "F", "60-64", "1", "PA", EFFUSION, "kept"),
    ("id_a1", "F", "60-64", "1", "L", EFFUSION, "other view"),
    ("id_a1", "F", "65-69", "2", "AP", HEALTHY, "kept"),
    ("id_b2", "M", "85 or more", "1", "PA", HEALTHY, "kept"),  # the accession number is that of another patient
    ("id_c3", "O", "20-24", "3", "PA", HEALTHY, "other value"),
    ("id_d4", "M", "", "4", "PA", HEALTHY, "blank value"),
    ("id_e5", "M", "30-34", "5", "PA", UNSURE, "uncertain finding"),
    ("id_f6", "M", "30-34", "6", "PA", {"Edema": "1"}, "other finding"),
    ("id_g7", "M", "34-30", "7", "PA", HEALTHY, "not a number"),
    ("id_h8", "M", "0-4", "8", "AP", EFFUSION, "kept"),
    ("id_i9", "F", "40-44", "9", "AP", HEALTHY, "kept"),
]
REJECTED = dict.fromkeys(
    ("other view", "other value", "blank value", "uncertain finding", "other finding", "not a number"), 1
)


@pytest.fixture
def brax(tmp_path, write_csv, draw):
    def make(**settings):
        root = tmp_path / "brax"
        rows = []
        for i, (patient, sex, age, accession, view, marked, _) in enumerate(IMAGES):
            png = f"images/{patient}/Study_{accession}/Series_{i}/image-{i}.png"
            draw(root / png, i)
            known = {"DicomPath": f"Anonymized_DICOMs/{i}.dcm", "PngPath": png, "PatientID": patient}
            known |= {"PatientSex": sex, "PatientAge": age, "AccessionNumber": accession, "StudyDate": "20100101"}
            rows.append(known | {"ViewPosition": view} | dict.fromkeys(CHEXPERT_FINDINGS, "") | marked)
        write_csv(root / "master_spreadsheet_update.csv", rows)
        drawn = {"split_seed": 11, "test_fraction": 0.3, "validation_fraction": 0.3}
        config = {"source": "brax", "root": str(root), "cache": str(tmp_path / "cache"), "size": 16}
        return DataConfig(**(config | drawn | settings))

    return make


def test_every_film_is_kept_or_rejected_for_its_reason(brax, check_every_row):
    cohort = open_cohort(brax(), load_graph("chest_without_race"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    shown = cohort.manifest[["row", "patient_id", "sex", "age", "finding"]].values.tolist()
    assert shown == [
        [0, "id_a1", "female", 62, "Pleural Effusion"],
        [2, "id_a1", "female", 67, "No Finding"],
        [3, "id_b2", "male", 87, "No Finding"],
        [9, "id_h8", "male", 2, "Pleural Effusion"],
        [10, "id_i9", "female", 42, "No Finding"],
    ]
    assert cohort.source["open age"] == 87 and cohort.source["splits"] == "by patient"
    card = (cohort.folder / "card.html").read_text("utf-8")
    assert "open band such as &#39;85 or more&#39;, read as 87 years (data.open_age): 1" in card
    assert "studies whose films have more than one finding" not in card  # accession 1 is two studies


def test_what_the_open_band_stands_for_is_a_setting(brax, check_every_row):
    cohort = open_cohort(brax(open_age=92.0), load_graph("chest_without_race"))
    assert cohort.manifest.set_index("row")["age"][3] == 92
    cohort = open_cohort(brax(open_age=0.0), load_graph("chest_without_race"))
    check_every_row(cohort, len(IMAGES), REJECTED | {"open age band": 1})
    rejected = (cohort.folder / "rejected.csv").read_text("utf-8")
    assert "age: '85 or more' has no middle; data.open_age says what it stands for" in rejected
    with pytest.raises(ConfigError, match=r"data\.open_age"):
        open_cohort(brax(open_age=-1.0), load_graph("chest_without_race"))


@pytest.mark.parametrize(
    ("recorded", "age", "is_open"),
    [
        *[(text, "62", False) for text in ("60-64", "060-064", "60 - 64 years", "60 to 64", "60–64")],
        *[(text, text, False) for text in ("61", "x", "", "64-60")],
        *[(text, "87", True) for text in ("85 or more", "85+", "≥85", ">= 85", "90 and older", "85 or older")],
    ],
)
def test_bands(recorded, age, is_open):
    ages, are_open = ages_of_bands(pd.Series([recorded, "1"]), 87)
    assert ages.tolist() == [age, "1"] and are_open.tolist() == [is_open, False]


@pytest.mark.parametrize(
    ("graph", "break_it", "message"),
    [
        ("chest", ("", ""), "BRAX doesn't record race; take a graph without it"),
        ("chest_without_race", ("ViewPosition", "View"), "has no column 'ViewPosition'"),
        ("chest_without_race", (",-1,", ",5,"), "'5' in column 'Pleural Effusion'; expected 1, 0, -1 or nothing"),
    ],
)
def test_what_cannot_be_read_is_one_line(brax, graph, break_it, message):
    config = brax()
    table = Path(config.root, "master_spreadsheet_update.csv")
    table.write_text(table.read_text().replace(*break_it))
    with pytest.raises(DataError) as error:
        open_cohort(config, load_graph(graph))
    assert message in str(error.value) and "\n" not in str(error.value)
