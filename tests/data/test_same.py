"""One file in several rows, under one person or several."""

import dataclasses
import json
from pathlib import Path

import pytest

from causalcxr.data import open_cohort
from causalcxr.support.errors import DataError


def noted(cohort) -> str:
    return (cohort.folder / "card.html").read_text("utf-8")


@pytest.mark.parametrize("written", ["images/0.png", "./images/0.png", "images//0.png", "images/../images/0.png"])
def test_a_file_of_several_people_in_two_splits_is_refused(make_folder, rows, chest, written):
    config = make_folder(rows)
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text().replace("images/7.png", written))
    with pytest.raises(DataError) as error:
        open_cohort(config, chest)
    assert "the file 'images/0.png' is of patient 'p0' and of 'p7', in train and test; name the right one" in str(
        error.value
    )
    assert "(or data.shared_pixels=keep)" in str(error.value) and "\n" not in str(error.value)
    cohort = open_cohort(dataclasses.replace(config, shared_pixels="keep"), chest)
    assert len(cohort.manifest) == 8
    assert "files that stand in several rows: 1<" in noted(cohort)
    assert "files that stand under several patients: 1<" in noted(cohort)


def test_within_a_split_it_is_counted(make_folder, rows, chest):
    rows[1]["path"] = rows[0]["path"]  # p0 and p1, both in train
    rows[3] |= {"path": rows[2]["path"], "patient_id": "p2"}  # one person twice
    card = noted(open_cohort(make_folder(rows), chest))
    assert "files that stand in several rows: 2<" in card and "files that stand under several patients: 1<" in card


def test_a_file_that_is_not_there_is_shared_by_nobody(make_folder, rows, chest):
    for row in (0, 7):
        rows[row]["path"] = "images/none.png"
    cohort = open_cohort(make_folder(rows, absent="images/none.png"), chest)
    assert cohort.rejected == {"missing file": 2} and "files that stand" not in noted(cohort)


def test_a_person_of_two_sexes_is_counted(make_folder, rows, chest):
    for row in (0, 1):
        rows[row] |= {"patient_id": "patient-zero", "study_id": "1"}
    card = noted(open_cohort(make_folder(rows), chest))
    assert (
        "patients with more than one sex: 1<" in card and "studies whose films have more than one sex: 1<" in card
    )
    assert "patient-zero" not in card  # the card names nobody


def test_what_contradicts_itself_stands_in_the_description_too(make_folder, rows, chest):
    for row in (0, 1):
        rows[row]["patient_id"] = "one"
    described = json.loads((open_cohort(make_folder(rows), chest).folder / "cohort.json").read_text("utf-8"))
    assert described["contradictions"] == {"patients with more than one sex": 1}


def test_a_file_that_a_table_from_windows_names_twice_is_counted(make_folder, rows, chest):
    config = make_folder(rows)
    table = Path(config.root, "metadata.csv")
    text = table.read_text().replace("images/0.png", r"images\0.PNG").replace("images/1.png", r"images\0.PNG")
    table.write_text(text)  # p0 and p1, both in train
    card = noted(open_cohort(config, chest))
    assert "files that stand in several rows: 1<" in card and "files that stand under several patients: 1<" in card
