"""CheXpert, full and small, with its demographics: laid out as published, with blanks, -1 and lateral views."""

from pathlib import Path

import numpy as np
import pytest

from causalcxr.data import DataConfig, open_cohort
from causalcxr.data.findings import CHEXPERT_FINDINGS
from causalcxr.data.images import read_image
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

EFFUSION, HEALTHY = {"Pleural Effusion": "1.0"}, {"No Finding": "1.0"}
NEGATIVE = dict.fromkeys(CHEXPERT_FINDINGS, "0.0")  # radiologists leave no blanks
UNCERTAIN = {"Pleural Effusion": "-1.0"}
IMAGES = [  # table, file, sex, age, AP/PA, labels, what becomes of it
    ("train", "patient00001/study1/view1_frontal.jpg", "Female", 68, "AP", EFFUSION, "kept"),
    ("train", "patient00001/study1/view2_lateral.jpg", "Female", 68, "", EFFUSION, "other view"),
    ("train", "patient00002/study1/view1_frontal.jpg", "Male", 87, "PA", HEALTHY, "kept"),
    ("train", "patient00002/study2/view1_frontal.jpg", "Male", 88, "AP", UNCERTAIN, "uncertain finding"),
    ("train", "patient00003/study1/view1_frontal.jpg", "Male", 41, "AP", {"Edema": "-1.0"}, "other finding"),
    ("train", "patient00004/study1/view1_frontal.jpg", "Female", 20, "PA", HEALTHY, "other value"),  # race unknown
    ("train", "patient00005/study1/view1_frontal.jpg", "Unknown", 33, "PA", HEALTHY, "other value"),  # sex unknown
    ("train", "patient00006/study1/view1_frontal.jpg", "Female", 0, "AP", HEALTHY, "out of range"),
    ("train", "patient00007/study1/view1_frontal.jpg", "Female", 59, "LL", HEALTHY, "other view"),
    ("train", "patient00008/study1/view1_frontal.jpg", "Male", 45, "AP", EFFUSION | {"Edema": "1.0"}, "kept"),
    ("train", "patient00009/study1/view1_frontal.jpg", "Male", 45, "AP", HEALTHY, "no record"),
    ("train", "patient00010/study1/view1_frontal.jpg", "Female", 71, "AP", HEALTHY, "blank value"),  # race blank
    ("valid", "patient64541/study1/view1_frontal.jpg", "Male", 73, "AP", NEGATIVE, "other finding"),
    ("valid", "patient64542/study1/view1_frontal.jpg", "Male", 70, "PA", HEALTHY, "kept"),
]  # fmt: skip
RACES = {
    **{
        "patient00001": "White, non-Hispanic",
        "patient00002": "Black or African American",
        "patient00003": "White",
    },
    **{"patient00004": "Race and Ethnicity Unknown", "patient00005": "White", "patient00006": "Asian"},
    **{"patient00007": "White", "patient00008": "Asian - Historical Conv", "patient00010": ""},
    **{"patient64541": "White", "patient64542": "White or Caucasian", "patient64741": "Black, Hispanic"},
}
REJECTED = {
    **{"other view": 2, "uncertain finding": 1, "other finding": 2, "other value": 2, "out of range": 1},
    **{"no record": 1, "blank value": 1},
}


@pytest.fixture
def chexpert(tmp_path, write_csv, draw):
    """Make a copy of the collection in `folder`; `demographics` is a CSV or an XLSX; perhaps with the test set."""

    def make(folder="CheXpert-v1.0", demographics="CHEXPERT_DEMO.csv", test=False, name="root"):
        root = tmp_path / name
        tables: dict[str, list] = {"train": [], "valid": []}
        for i, (part, file, sex, age, view, marked, _) in enumerate(IMAGES):
            draw(root / folder / part / file, i)
            side = "Frontal" if "frontal" in file else "Lateral"
            known = {
                "Path": f"{folder}/{part}/{file}",
                "Sex": sex,
                "Age": age,
                "Frontal/Lateral": side,
                "AP/PA": view,
            }
            tables[part].append(known | dict.fromkeys(CHEXPERT_FINDINGS, "") | marked)
        for part, rows in tables.items():
            write_csv(root / folder / f"{part}.csv", rows)
        if test:  # as published: without sex, age and view
            file = "test/patient64741/study1/view1_frontal.jpg"
            draw(root / folder / file, 99)
            write_csv(
                root / folder / "test_labels.csv",
                [{"Path": file} | dict.fromkeys(CHEXPERT_FINDINGS, "0.0") | EFFUSION],
            )
        people = [
            {
                "PATIENT": patient,
                "GENDER": "Female",
                "AGE_AT_CXR": "52",
                "PRIMARY_RACE": race,
                "ETHNICITY": "Unknown",
            }
            for patient, race in RACES.items()
        ]
        write_sheet(root / demographics, people, write_csv)
        return DataConfig(
            source="chexpert",
            root=str(root),
            cache=str(tmp_path / "cache"),
            size=16,
            split_seed=2,
            test_fraction=0.3,
        )

    return make


def write_sheet(path: Path, rows: list, write_csv) -> None:
    if path.suffix == ".csv":
        write_csv(path, rows)
        return
    book = pytest.importorskip("openpyxl", reason="openpyxl (extra cxr) is not installed").Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append([int(cell) if cell.isdigit() else cell or None for cell in row.values()])
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def test_every_image_is_kept_or_rejected_for_its_reason(chexpert, check_every_row):
    config = chexpert()
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    shown = cohort.manifest[["row", "patient_id", "sex", "race", "age", "finding"]].values.tolist()
    assert shown == [
        [0, "patient00001", "female", "white", 68, "Pleural Effusion"],
        [2, "patient00002", "male", "black", 87, "No Finding"],
        [9, "patient00008", "male", "asian", 45, "Pleural Effusion"],
        [13, "patient64542", "male", "white", 70, "No Finding"],
    ]
    assert cohort.source["splits"] == "by patient"  # there is no table of a test set
    assert cohort.manifest["path"][0] == "train/patient00001/study1/view1_frontal.jpg"
    first = Path(config.root, "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg")
    assert np.array_equal(cohort.images[0], read_image(first, 16, 1))


@pytest.mark.parametrize(
    "demographics", ["CHEXPERT DEMO.xlsx", "chexpertdemodata-2/CHEXPERT DEMO.xlsx", "CHEXPERT DEMO.csv"]
)
def test_small_and_full_and_every_form_of_the_demographics_agree(chexpert, demographics):
    full = open_cohort(chexpert(), load_graph("chest"))
    small = open_cohort(chexpert("CheXpert-v1.0-small", demographics, name="small"), load_graph("chest"))
    assert full.folder != small.folder and full.data_hash == small.data_hash and full.rejected == small.rejected


def test_the_official_splits_with_the_test_set(chexpert, check_every_row):
    cohort = open_cohort(chexpert(test=True), load_graph("chest"))
    check_every_row(cohort, len(IMAGES) + 1, REJECTED)
    assert cohort.source["splits"] == "official"
    assert cohort.manifest["split"].tolist() == ["train", "train", "train", "val", "test"]
    last = cohort.manifest.iloc[-1]  # sex and age are those of the demographics
    assert last[["sex", "race", "age", "finding"]].tolist() == ["female", "black", 52, "Pleural Effusion"]


@pytest.mark.parametrize(("uncertain", "kept"), [("positive", [0, 2, 3, 9, 13]), ("negative", [0, 2, 9, 13])])
def test_uncertain_findings_can_be_ones_or_zeros(chexpert, uncertain, kept):
    config = chexpert()
    config.uncertain = uncertain
    cohort = open_cohort(config, load_graph("chest"))
    assert cohort.manifest["row"].tolist() == kept and "uncertain finding" not in cohort.rejected


def test_no_demographics_are_needed_without_race(chexpert):
    config = chexpert()
    Path(config.root, "CHEXPERT_DEMO.csv").unlink()
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert cohort.manifest["row"].tolist() == [0, 2, 5, 9, 10, 11, 13]
    assert cohort.rejected["out of range"] == 1  # an age of 0 means unknown, though this graph begins at 0


def test_all_views(chexpert):
    config = chexpert()
    config.views = []
    assert open_cohort(config, load_graph("chest")).manifest["row"].tolist() == [0, 1, 2, 8, 9, 13]


def test_root_may_be_the_folder_itself(chexpert):
    config = chexpert()
    beside = open_cohort(config, load_graph("chest"))
    config.root += "/CheXpert-v1.0"
    assert open_cohort(config, load_graph("chest")).data_hash == beside.data_hash


def test_what_cannot_be_read_is_one_clear_line(chexpert, tmp_path):
    config = chexpert()
    chexpert("CheXpert-v1.0-small")
    with pytest.raises(DataError, match=r"has CheXpert-v1.0 and CheXpert-v1.0-small; name one of them"):
        open_cohort(config, load_graph("chest"))
    config.root += "/CheXpert-v1.0"
    Path(config.root, "../CHEXPERT_DEMO.csv").unlink()
    with pytest.raises(DataError, match=r"no CHEXPERT DEMO.csv .*docs/data/chexpert.md"):
        open_cohort(config, load_graph("chest"))
    table = Path(config.root, "train.csv")
    table.write_text(table.read_text().replace("train/patient00002/study1", "elsewhere"))
    with pytest.raises(DataError, match=r"'CheXpert-v1.0/elsewhere/view1_frontal.jpg' in column 'Path'"):
        open_cohort(config, load_graph("chest_without_race"))
    with pytest.raises(DataError, match=r"no train.csv \(or .gz\) in .*docs/data/chexpert.md"):
        open_cohort(DataConfig(source="chexpert", root=str(tmp_path)), load_graph("chest"))


def test_a_spreadsheet_that_is_none_is_one_clear_line(chexpert):
    pytest.importorskip("openpyxl", reason="openpyxl (extra cxr) is not installed")
    config = chexpert()
    Path(config.root, "CHEXPERT_DEMO.csv").unlink()
    Path(config.root, "CHEXPERT DEMO.xlsx").write_bytes(b"<html>log in first</html>")
    with pytest.raises(DataError, match=r"CHEXPERT DEMO.xlsx' can't be read as XLSX: "):
        open_cohort(config, load_graph("chest"))
