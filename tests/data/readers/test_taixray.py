"""TAIX-Ray, laid out as published: ages in days, grades by lung, hearts that can't be read."""

from pathlib import Path

import pytest

from causalcxr.data import DataConfig, open_cohort
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

GRADES = ("HeartSize", "PulmonaryCongestion", "PleuralEffusion_Right", "PleuralEffusion_Left")
GRADES += ("PulmonaryOpacities_Right", "PulmonaryOpacities_Left", "Atelectasis_Right", "Atelectasis_Left")
IMAGES = [  # patient, split, age in days, sex, grades in this order, what becomes of it by default
    ("a", "train", "26647", "M", "0 0 2 0 0 0 0 0", "Pleural Effusion"),
    ("a", "train", "26648", "M", "0 0 0 0 0 0 0 0", "No Finding"),
    ("b", "train", "19020", "F", "4 0 0 0 0 0 0 0", "uncertain finding"),  # a heart that can't be read
    ("c", "train", "19020", "F", "4 0 0 3 0 0 0 0", "Pleural Effusion"),  # it doesn't matter here
    ("d", "train", "19020", "F", "2 0 0 0 0 0 0 0", "other finding"),
    ("e", "train", "19020", "F", "0 0 1 0 0 0 0 0", "Pleural Effusion"),  # questionable
    ("f", "val", "40000", "F", "0 0 4 4 0 0 0 0", "out of range"),
    ("g", "val", "", "F", "0 0 4 4 0 0 0 0", "blank value"),
    ("h", "val", "730", "F", "0 0 1 4 4 4 4 4", "Pleural Effusion"),
    ("i", "test", "30000", "F", "0 0 3 3 0 0 0 0", "Pleural Effusion"),
    ("j", "test", "30000", "M", "0 0 0 0 0 0 0 0", "No Finding"),
]
REJECTED = {"uncertain finding": 1, "other finding": 1, "out of range": 1, "blank value": 1}


@pytest.fixture
def taixray(tmp_path, write_csv, draw):
    def make(**settings):
        root = tmp_path / "taix"
        rows = []
        for i, (patient, split, age, sex, grades, _) in enumerate(IMAGES):
            draw(root / f"images/{i:064x}.png", i)
            known = {"UID": f"{i:064x}", "Fold": 0, "Split": split, "PatientID": patient, "PhysicianID": "x"}
            known |= {"StudyDate": "2013-05-25", "Age": age, "Sex": sex}
            rows.append(known | dict(zip(GRADES, grades.split(), strict=True)))
        write_csv(root / "annotation.csv", rows)
        config = {"source": "taixray", "root": str(root), "cache": str(tmp_path / "cache"), "size": 16}
        return DataConfig(**(config | settings))

    return make


def test_every_film_is_kept_or_rejected_for_its_reason(taixray, check_every_row):
    cohort = open_cohort(taixray(), load_graph("chest_without_race"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    kept = [(i, row[1], row[-1]) for i, row in enumerate(IMAGES) if row[-1] not in REJECTED]
    assert list(zip(*(cohort.manifest[name] for name in ("row", "split", "finding")), strict=True)) == kept
    ages = dict(zip(cohort.manifest["row"], cohort.manifest["age"], strict=True))
    assert ages[0] == pytest.approx(26647 / 365.25, abs=0.005) and ages[8] == pytest.approx(2.0, abs=0.005)
    assert cohort.source["present from grade"] == "1" and cohort.source["sides"] == "any"


@pytest.mark.parametrize(
    ("settings", "effusions"),
    [
        ({}, [0, 3, 5, 8, 9]),
        ({"present_grade": 2}, [0, 3, 8, 9]),
        ({"present_grade": 4}, [8]),
        ({"sides": "left"}, [3, 8, 9]),
        ({"sides": "right"}, [0, 5, 8, 9]),
        ({"sides": "both"}, [8, 9]),
        ({"sides": "both", "present_grade": 3}, [9]),
    ],
)
def test_what_counts_as_present_is_a_setting(taixray, settings, effusions):
    config = taixray(**settings)
    config.other = {"finding": "No Finding"}  # so that every split has rows
    cohort = open_cohort(config, load_graph("chest_without_race"))
    found = cohort.manifest["row"][cohort.manifest["finding"] == "Pleural Effusion"]
    assert found.tolist() == effusions


def test_a_doubtful_effusion_is_no_healthy_film(taixray):
    config = taixray(present_grade=2)
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert 5 not in cohort.manifest["row"].tolist() and cohort.rejected["other finding"] == 2


def test_hearts(taixray):
    config = taixray(labels={"finding": {"Cardiomegaly": "Pleural Effusion", "No Finding": "No Finding"}})
    config.other = {"finding": "No Finding"}
    cohort = open_cohort(config, load_graph("chest_without_race"))
    found = dict(zip(cohort.manifest["row"], cohort.manifest["finding"], strict=True))
    assert found[4] == "Pleural Effusion" and 2 not in found and 3 not in found  # 2 and 3 can't be read


@pytest.mark.parametrize(
    ("graph", "break_it", "message"),
    [
        ("chest", ("", ""), "TAIX-Ray doesn't record race"),
        ("chest_without_race", ("HeartSize", "Heart"), "has no column 'HeartSize'; did you mean 'Heart'?"),
        (
            "chest_without_race",
            (",3,3,", ",5,3,"),
            "'5' in column 'PleuralEffusion_Right'; expected a grade from 0 to 4",
        ),
        ("chest_without_race", (f"{1:064x}", f"{0:064x}"), "0' in two rows; keep the rows of one Fold"),
    ],
)
def test_what_cannot_be_read_is_one_line(taixray, graph, break_it, message):
    config = taixray()
    table = Path(config.root, "annotation.csv")
    table.write_text(table.read_text().replace(*break_it))
    with pytest.raises(DataError) as error:
        open_cohort(config, load_graph(graph))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_ages_in_years_are_noticed(taixray):
    config = taixray()
    table = Path(config.root, "annotation.csv")
    text = table.read_text()
    for days in {row[2] for row in IMAGES if row[2]}:
        text = text.replace(f",{days},", f",{int(days) // 365},")
    table.write_text(text)
    with pytest.raises(DataError, match="the highest 'Age' is 109; expected ages in days"):
        open_cohort(config, load_graph("chest_without_race"))


def test_parquet_files_say_what_to_do(taixray):
    config = taixray()
    Path(config.root, "annotation.csv").unlink()
    (Path(config.root) / "data").mkdir()
    (Path(config.root) / "data/train-00000-of-00099.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"has Parquet files; write them out as annotation.csv and images/UID.png"):
        open_cohort(config, load_graph("chest_without_race"))
