"""CheXpert Plus, laid out as published: films of one study that differ, ages of 0, downloads that aren't whole."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from causalcxr.data import DataConfig, open_cohort
from causalcxr.data.findings import CHEXPERT_FINDINGS
from causalcxr.data.images import read_image
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

EFFUSION, HEALTHY, UNSURE = {"Pleural Effusion": 1.0}, {"No Finding": 1.0}, {"Pleural Effusion": -1.0}
NOTHING: dict[str, float] = {}
IMAGES = [  # split, patient, study, film, view, sex, race, age, labels (None: no line), what becomes of it
    ("train", "00001", 1, "view1_frontal", "AP", "Female", "White", "68.0", EFFUSION, "kept"),
    ("train", "00001", 1, "view2_lateral", "", "Female", "White", "68.0", EFFUSION, "other view"),
    ("train", "00002", 1, "view1_frontal", "PA", "Male", "Black", "87.0", HEALTHY, "kept"),
    ("train", "00002", 2, "view1_frontal", "PA", "Male", "Black", "88.0", UNSURE, "uncertain finding"),
    ("train", "00003", 1, "view1_frontal", "AP", "Male", "Asian", "41.0", HEALTHY, "ambiguous"),
    ("train", "00003", 1, "view2_frontal", "AP", "Male", "Asian", "41.0", EFFUSION, "ambiguous"),
    ("train", "00004", 1, "view1_frontal", "AP", "Male", "White", "52.0", EFFUSION, "kept"),
    ("train", "00004", 1, "view2_frontal", "AP", "Male", "White", "52.0", NOTHING, "kept"),
    ("train", "00005", 1, "view1_frontal", "AP", "Female", "White", "0.0", HEALTHY, "out of range"),
    ("train", "00006", 1, "view1_frontal", "AP", "Female", "Other", "30.0", HEALTHY, "other value"),
    ("train", "00007", 1, "view1_frontal", "AP", "Female", "White", "30.0", None, "no label"),
    ("train", "00008", 1, "view1_frontal", "LL", "Female", "White", "30.0", HEALTHY, "other view"),
    ("train", "00009", 1, "view1_frontal", "AP", "Female", "White", "61.0", HEALTHY, "partial download"),
    ("train", "00010", 1, "view1_frontal", "AP", "Female", "White", "61.0", HEALTHY, "missing file"),
    ("valid", "64541", 1, "view1_frontal", "AP", "Male", "White", "73.0", HEALTHY, "kept"),
]  # fmt: skip
REJECTED = {
    **{
        "other view": 2,
        "ambiguous": 2,
        "uncertain finding": 1,
        "out of range": 1,
        "other value": 1,
        "no label": 1,
    },
    **{"partial download": 1, "missing file": 1},
}
KEPT = [0, 2, 6, 7, 14]


@pytest.fixture
def plus(tmp_path, write_csv, draw):
    def make(folder="PNG", label_file="impression_fixed.json", labels="", **settings):
        root = tmp_path / f"plus{len(list(tmp_path.iterdir()))}"
        rows, lines = [], []
        for i, (split, patient, study, name, view, sex, race, age, marked, fate) in enumerate(IMAGES):
            film = f"patient{patient}/study{study}/{name}"
            file = root / folder / split / f"{film}.png"
            if fate not in ("partial download", "missing file"):
                draw(file, i)
            else:
                file.parent.mkdir(parents=True)
            if fate == "partial download":
                (file.parent / f".azDownload-8d1f-{file.name}").write_bytes(b"\x89PNG half of")
            path = f"{split}/{film}.jpg"
            known = {
                "path_to_image": path,
                "path_to_dcm": f"{split}/{film}.dcm",
                "frontal_lateral": name[6:].title(),
            }
            person = {
                "ap_pa": view,
                "deid_patient_id": film[:12],
                "age": age,
                "sex": sex,
                "race": f"{race}, non-Hispanic",
            }
            rows.append(
                known | person | {"ethnicity": "Unknown", "split": split, "section_findings": 'A, "quoted"\nline'}
            )
            if marked is not None:
                lines.append(json.dumps({"path_to_image": path} | dict.fromkeys(CHEXPERT_FINDINGS) | marked))
        write_csv(root / "df_chexpert_plus_240401.csv", rows)
        (root / labels).mkdir(exist_ok=True)
        (root / labels / "impression_fixed.json").write_text("\n".join(lines) + "\n", "utf-8")
        config = {"source": "chexpert_plus", "root": str(root), "cache": str(tmp_path / "cache"), "size": 16}
        drawn = {"split_seed": 5, "test_fraction": 0.3, "validation_fraction": 0.3}
        return DataConfig(**config, **drawn, label_file=label_file, **settings)

    return make


def test_every_film_is_kept_or_rejected_for_its_reason(plus, check_every_row):
    config = plus()
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    assert cohort.manifest["row"].tolist() == KEPT
    shown = cohort.manifest[["patient_id", "sex", "race", "age", "finding"]].values.tolist()
    assert shown == [
        ["patient00001", "female", "white", 68, "Pleural Effusion"],
        ["patient00002", "male", "black", 87, "No Finding"],
        ["patient00004", "male", "white", 52, "Pleural Effusion"],
        ["patient00004", "male", "white", 52, "Pleural Effusion"],  # as the study's other film
        ["patient64541", "male", "white", 73, "No Finding"],
    ]
    path = cohort.manifest["path"][0]
    assert path == "PNG/train/patient00001/study1/view1_frontal.png"
    assert np.array_equal(cohort.images[0], read_image(Path(config.root, path), 16, 1))


@pytest.mark.parametrize(
    ("how", "findings"),  # of the two films of patient 3, healthy and not; and of patient 4, one with an effusion
    [
        ("any", {6: "Pleural Effusion", 7: "Pleural Effusion"}),
        ("all", {}),
        ("first", {4: "No Finding", 5: "No Finding", 6: "Pleural Effusion", 7: "Pleural Effusion"}),
    ],
)
def test_films_of_one_study_that_differ(plus, how, findings):
    cohort = open_cohort(plus(study_labels=how), load_graph("chest"))
    found = cohort.manifest.set_index("row")["finding"]
    assert {row: found[row] for row in (4, 5, 6, 7) if row in found} == findings
    assert cohort.source["study labels"] == how
    card = (cohort.folder / "card.html").read_text("utf-8")
    assert f"studies whose films have different labels, read by data.study_labels={how}: 2" in card


def test_the_card_shows_the_file_and_what_is_positive_in_it(plus):
    cohort = open_cohort(plus(), load_graph("chest"))
    assert cohort.source["labels"] == "impression_fixed.json"
    # Of 14 films with a line, 6 have an effusion and 9 no finding; those of patient 3 have both.
    assert cohort.source["prevalence"] == {"No Finding": "64.3 %", "Pleural Effusion": "42.9 %"}
    card = (cohort.folder / "card.html").read_text("utf-8")
    assert "impression_fixed.json" in card and "prevalence" in card


@pytest.mark.parametrize("folder", ["PNG", "."])
@pytest.mark.parametrize("labels", ["", "chexbert_labels"])
def test_files_are_found_where_they_are_unpacked(plus, folder, labels):
    cohort = open_cohort(plus(folder=folder, labels=labels), load_graph("chest"))
    assert cohort.manifest["row"].tolist() == KEPT


def test_compressed_labels(plus):
    config = plus()
    file = Path(config.root, "impression_fixed.json")
    file.with_suffix(".json.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert open_cohort(config, load_graph("chest")).manifest["row"].tolist() == KEPT


def test_a_graph_without_race_keeps_everybody(plus):
    cohort = open_cohort(plus(), load_graph("chest_without_race"))
    assert cohort.manifest["row"].tolist() == [0, 2, 6, 7, 9, 14]
    assert cohort.rejected["out of range"] == 1  # an age of 0 means unknown


@pytest.mark.parametrize(
    ("label_file", "break_it", "message"),
    [
        (
            "",
            None,
            "data.label_file is empty; name one of findings_fixed.json, impression_fixed.json, report_fixed",
        ),
        ("labels.json", None, "data.label_file is 'labels.json'; name one of"),
        ("report_fixed.json", None, "no report_fixed.json (or .gz) in"),
        ("impression_fixed.json", ("1.0", "2.0"), "'2.0' in column"),
        ("impression_fixed.json", ('{"path', '{"pa'), "line 1: expected one JSON object with 'path_to_image'"),
        ("impression_fixed.json", ("}\n", "\n"), "line 1: expected one JSON object"),
        (
            "impression_fixed.json",
            ("patient00002/study1", "patient00001/study1"),
            "view1_frontal.jpg' in two rows",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(plus, label_file, break_it, message):
    config = plus(label_file=label_file)
    if break_it:
        file = Path(config.root, "impression_fixed.json")
        file.write_text(file.read_text().replace(*break_it))
    with pytest.raises(DataError) as error:
        open_cohort(config, load_graph("chest"))
    assert message in str(error.value) and "\n" not in str(error.value)
