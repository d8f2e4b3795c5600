"""MIMIC-CXR-JPG with MIMIC-IV, laid out as published: which images are kept, and what they say of whom."""

import json
from pathlib import Path

import numpy as np
import pytest

from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.data.findings import CHEXPERT_FINDINGS
from causalcxr.data.images import read_image
from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.support.errors import ConfigError, DataError

EFFUSION, HEALTHY = {"Pleural Effusion": "1.0"}, {"No Finding": "1.0"}
PEOPLE = {  # subject: gender, anchor_age, anchor_year, race of each admission before MIMIC-IV 2.0 and since
    "10000032": ("F", 52, 2180, ["WHITE", "WHITE"], ["WHITE", "WHITE - RUSSIAN"]),
    "10000764": ("M", 86, 2132, ["WHITE"], ["WHITE - OTHER EUROPEAN"]),
    "11000898": ("F", 79, 2188, ["BLACK/AFRICAN AMERICAN"], ["BLACK/CAPE VERDEAN"]),
    "12000935": ("M", 40, 2182, ["ASIAN"], ["ASIAN - CHINESE"]),
    "13000980": (
        "F",
        61,
        2186,
        ["BLACK/AFRICAN AMERICAN", "WHITE"],
        ["BLACK/AFRICAN", "WHITE"],
    ),  # contradicts itself
    "14001038": ("M", 30, 2149, ["WHITE", "UNKNOWN"], ["WHITE", "UNKNOWN"]),  # as this does
    "15001122": ("F", 44, 2131, ["HISPANIC/LATINO"], ["HISPANIC/LATINO - CUBAN", "HISPANIC/LATINO - MEXICAN"]),
    "16001176": ("M", 17, 2186, ["WHITE"], ["WHITE"]),
}
IMAGES = [  # subject, study, view, year, split, labels, what becomes of it
    ("10000032", "50414267", "PA", 2180, "train", EFFUSION, "kept"),
    ("10000032", "50414267", "LATERAL", 2180, "train", EFFUSION, "other view"),
    ("10000032", "53189527", "AP", 2183, "train", HEALTHY | {"Support Devices": "1.0"}, "kept"),
    ("10000764", "57375967", "AP", 2132, "validate", EFFUSION | {"Edema": "-1.0"}, "kept"),
    ("10000764", "57375968", "PA", 2132, "validate", {"Pleural Effusion": "-1.0"}, "uncertain finding"),
    ("11000898", "50771383", "PA", 2190, "test", HEALTHY, "kept"),
    ("11000898", "54205396", "", 2190, "test", HEALTHY, "other view"),
    (
        "11000898",
        "54205397",
        "AP",
        2190,
        "test",
        {"Atelectasis": "1.0", "Pleural Effusion": "0.0"},
        "other finding",
    ),
    ("12000935", "51178377", "AP", 2184, "train", EFFUSION | {"Edema": "1.0"}, "kept"),
    ("12000935", "51178378", "AP", 2184, "train", {}, "other finding"),  # the report says nothing
    ("12000935", "51178379", "AP", 2184, "train", None, "no label"),  # nor does the table of labels
    ("13000980", "54577367", "PA", 2186, "train", HEALTHY, "conflicting race"),
    ("14001038", "54980801", "PA", 2149, "train", HEALTHY, "conflicting race"),
    ("15001122", "53447138", "AP", 2131, "train", {"Edema": "1.0"}, "other value"),  # people first, then findings
    ("16001176", "53186264", "AP", 2186, "train", HEALTHY, "out of range"),
    ("19999999", "52000000", "AP", 2186, "train", HEALTHY, "no record"),  # nobody in MIMIC-IV
]
REJECTED = {
    **{"other view": 2, "uncertain finding": 1, "other finding": 2, "no label": 1, "conflicting race": 2},
    **{"other value": 1, "out of range": 1, "no record": 1},
}


@pytest.fixture
def mimic(tmp_path, write_csv, draw):
    """Make a copy of the collections; `race` names the column of MIMIC-IV, `ending` is .csv or .csv.gz."""

    def make(race: str = "race", ending: str = ".csv", tables: str = "", name: str = "mimic", labeler="chexpert"):
        root = tmp_path / name
        ids = [f"{i:08x}-0edafdd1-112c0b34-7bc16630-4e384014" for i in range(len(IMAGES))]
        metadata, split, labels = [], [], {}
        for i, (subject, study, view, year, part, marked, _) in enumerate(IMAGES):
            draw(root / f"files/p{subject[:2]}/p{subject}/s{study}/{ids[i]}.jpg", i)
            known = {"dicom_id": ids[i], "subject_id": subject, "study_id": study}
            metadata.append(known | {"ViewPosition": view, "Rows": 3056, "StudyDate": year * 10000 + 506})
            split.append(known | {"split": part})
            if marked is not None:
                labels[study] = (
                    {"subject_id": subject, "study_id": study} | dict.fromkeys(CHEXPERT_FINDINGS, "") | marked
                )
        for kind, rows in {"metadata": metadata, "split": split, labeler: list(labels.values())}.items():
            write_csv(root / f"mimic-cxr-2.0.0-{kind}{ending}", rows)
        patients, admissions = [], []
        for subject, (gender, age, year, before, since) in PEOPLE.items():
            patients.append({"subject_id": subject, "gender": gender, "anchor_age": age, "anchor_year": year})
            recorded = since if race == "race" else before
            admissions += [{"subject_id": subject, "hadm_id": 1, race: entry} for entry in recorded]
        write_csv(root / tables / f"patients{ending}", patients)
        write_csv(root / tables / f"admissions{ending}", admissions)
        return DataConfig(source="mimic", root=str(root), cache=str(tmp_path / "cache"), size=16)

    return make


def test_every_image_is_kept_or_rejected_for_its_reason(mimic, check_every_row):
    config = mimic()
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    assert cohort.manifest["row"].tolist() == [i for i, row in enumerate(IMAGES) if row[-1] == "kept"]
    shown = cohort.manifest[["patient_id", "split", "sex", "race", "age", "finding"]].values.tolist()
    assert shown == [
        ["10000032", "train", "female", "white", 52, "Pleural Effusion"],
        ["10000032", "train", "female", "white", 55, "No Finding"],  # three years after the anchor
        ["10000764", "val", "male", "white", 86, "Pleural Effusion"],
        ["11000898", "test", "female", "black", 81, "No Finding"],
        ["12000935", "train", "male", "asian", 42, "Pleural Effusion"],
    ]
    first = cohort.manifest["path"][0]
    assert first == "files/p10/p10000032/s50414267/00000000-0edafdd1-112c0b34-7bc16630-4e384014.jpg"
    assert np.array_equal(cohort.images[0], read_image(Path(config.root, first), 16, 1))


def test_the_order_of_the_classes_is_written_down(mimic):
    described = json.loads((prepare(mimic(), load_graph("chest")) / "cohort.json").read_text("utf-8"))
    assert described["graph"]["variables"]["race"] == ["white", "asian", "black"]
    assert described["source"]["splits"] == "official" and described["source"]["views"] == ["AP", "PA"]
    assert described["source"]["uncertain"] == "reject"
    assert described["source"]["tables"] == [
        *("mimic-cxr-2.0.0-metadata.csv", "patients.csv", "admissions.csv"),
        *("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-split.csv"),
    ]


def test_before_and_after_the_race_column_was_renamed_the_cohort_is_the_same(mimic):
    before = open_cohort(mimic("ethnicity", name="before"), load_graph("chest"))
    since = open_cohort(mimic("race", name="since"), load_graph("chest"))
    assert before.folder != since.folder and before.data_hash == since.data_hash
    assert before.rejected == since.rejected


@pytest.mark.parametrize(
    "tables", ["core", "hosp", "mimiciv/2.2/hosp", "../mimic-iv-3.1/hosp", "../../mimiciv/1.0/core"]
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_tables_are_found_where_they_are_published(mimic, ending, tables):
    plain = open_cohort(mimic(), load_graph("chest"))
    config = mimic(ending=ending, tables=tables, name="other/mimic-cxr-jpg/2.0.0")
    assert open_cohort(config, load_graph("chest")).data_hash == plain.data_hash


def test_two_versions_beside_the_images_are_an_error(mimic):
    config = mimic(tables="mimiciv/1.0/core")
    mimic(tables="mimiciv/2.2/hosp")
    with pytest.raises(DataError, match=r"1.0/core/patients.csv' and .*2.2/hosp/patients.csv': which MIMIC-IV"):
        prepare(config, load_graph("chest"))
    mimic()  # the tables in the root are the ones meant
    prepare(config, load_graph("chest"))


def test_negbio_labels_serve_where_chexpert_labels_are_missing(mimic):
    cohort = open_cohort(mimic(labeler="negbio"), load_graph("chest"))
    assert "mimic-cxr-2.0.0-negbio.csv" in cohort.source["tables"] and cohort.rejected == REJECTED


@pytest.mark.parametrize(
    ("uncertain", "finding", "counts"),
    [
        ("positive", "Pleural Effusion", {key: n for key, n in REJECTED.items() if key != "uncertain finding"}),
        (
            "negative",
            None,
            {key: n for key, n in REJECTED.items() if key != "uncertain finding"} | {"other finding": 3},
        ),
    ],
)
def test_uncertain_findings_can_be_ones_or_zeros(mimic, check_every_row, uncertain, finding, counts):
    config = mimic()
    config.uncertain = uncertain
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), counts)
    row = cohort.manifest.set_index("row")["finding"].get(4)
    assert row == finding


def test_other_findings_can_be_a_class(mimic, check_every_row):
    config = mimic()
    config.other = {"finding": "No Finding"}  # an effusion against everything else
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), {key: n for key, n in REJECTED.items() if key != "other finding"})
    assert cohort.manifest.set_index("row")["finding"][[7, 9]].tolist() == ["No Finding", "No Finding"]


def test_which_findings_count_is_configured(mimic):
    config = mimic()
    diseases = ("Pleural Effusion", "Edema", "Atelectasis")  # the graph's name for them is Pleural Effusion
    config.labels = {"finding": dict.fromkeys(diseases, "Pleural Effusion") | {"No Finding": "No Finding"}}
    cohort = open_cohort(config, load_graph("chest"))
    diseased = cohort.manifest["row"][cohort.manifest["finding"] == "Pleural Effusion"]
    assert diseased.tolist() == [0, 3, 7, 8]  # 3 is one whatever its uncertain edema is
    assert cohort.rejected["uncertain finding"] == 1 and cohort.rejected["other finding"] == 1


def test_other_views_and_splits_by_patient(mimic):
    config = mimic()
    config.views = ["AP", "PA", "LATERAL"]
    config.validation_fraction, config.test_fraction = 0.3, 0.3
    Path(config.root, "mimic-cxr-2.0.0-split.csv").unlink()
    cohort = open_cohort(config, load_graph("chest"))
    assert cohort.source["splits"] == "by patient"
    assert cohort.manifest["row"].tolist() == [0, 1, 2, 3, 5, 8]
    assert cohort.rejected["other view"] == 1  # the blank one
    assert cohort.manifest.groupby("patient_id")["split"].nunique().tolist() == [1, 1, 1, 1]


def test_a_graph_without_race_needs_no_admissions(mimic):
    config = mimic()
    Path(config.root, "admissions.csv").unlink()
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert "conflicting race" not in cohort.rejected
    assert cohort.manifest["row"].tolist() == [0, 2, 3, 5, 8, 11, 12, 14]


def test_a_graph_without_an_image_needs_no_files(mimic):
    config = mimic()
    declared = load_graph("chest").to_dict()
    declared["variables"].pop("image")
    with_images = open_cohort(config, load_graph("chest"))
    for file in Path(config.root).rglob("*.jpg"):
        file.unlink()
    cohort = open_cohort(config, graph_from_dict(declared))
    assert cohort.images is None
    assert cohort.manifest.drop(columns="path").equals(with_images.manifest.drop(columns="path"))


def test_an_image_that_is_missing_is_counted(mimic, check_every_row):
    config = mimic()
    next(Path(config.root).rglob("00000002-*.jpg")).unlink()
    cohort = open_cohort(config, load_graph("chest"))
    check_every_row(cohort, len(IMAGES), REJECTED | {"missing file": 1})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "admissions.csv").unlink(), "no admissions.csv"),
        (lambda root: (root / "patients.csv").unlink(), "no patients.csv"),
        (lambda root: (root / "mimic-cxr-2.0.0-metadata.csv").unlink(), "no mimic-cxr-2.0.0-metadata.csv"),
        (lambda root: (root / "mimic-cxr-2.0.0-chexpert.csv").unlink(), "negbio.csv (or .gz)"),
        (
            lambda root: replace(root / "admissions.csv", ",race", ",colour"),
            "'race' (MIMIC-IV from 2.0 on) nor 'ethnicity'",
        ),
        (lambda root: replace(root / "patients.csv", "anchor_age", "age"), "no column 'anchor_age'"),
        (
            lambda root: replace(root / "patients.csv", "10000764", "10000032"),
            "'10000032' in two rows of 'subject_id'",
        ),
        (lambda root: replace(root / "mimic-cxr-2.0.0-chexpert.csv", "-1.0", "2.0"), "'2.0' in column"),
        (lambda root: replace(root / "mimic-cxr-2.0.0-split.csv", "validate", "dev"), "unknown split 'dev'"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(mimic, break_it, message):
    config = mimic()
    break_it(Path(config.root))
    with pytest.raises(DataError) as error:
        open_cohort(config, load_graph("chest"))
    assert message in str(error.value) and "\n" not in str(error.value)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"uncertain": "posit"}, ConfigError, "did you mean 'positive'?"),
        ({"other": {"findings": "No Finding"}}, DataError, "did you mean 'finding'?"),
        ({"other": {"finding": "Healthy"}}, DataError, "no label 'Healthy'"),
        ({"labels": {"finding": {"Effusion": "Pleural Effusion"}}}, DataError, "did you mean 'Pleural Effusion'?"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(mimic, settings, kind, message):
    config = mimic()
    for key, value in settings.items():
        setattr(config, key, value)
    with pytest.raises(kind) as error:
        open_cohort(config, load_graph("chest"))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def hand_read(mimic, write_csv):
    """MIMIC-CXR-JPG 2.1.0: the same, with studies whose labels people read; another name for Lung Opacity."""

    def make(version: str = "2.0.0", **settings):
        config = mimic(name=f"mimic{version}{len(settings)}")
        names = ["Airspace Opacity" if name == "Lung Opacity" else name for name in CHEXPERT_FINDINGS]
        marked = {
            "50771383": EFFUSION,  # in the test split; No Finding by the labeller
            "54205397": {"No Finding": "-1.0"},
            "53189527": EFFUSION,  # in the training split
            "99999999": HEALTHY,  # no such study here
        }
        rows = [{"study_id": study} | dict.fromkeys(names, "0.0") | found for study, found in marked.items()]
        write_csv(Path(config.root, "mimic-cxr-2.1.0-test-set-labeled.csv"), rows)
        if version != "2.0.0":
            for file in Path(config.root).glob("mimic-cxr-2.0.0-*"):
                file.rename(file.with_name(file.name.replace("2.0.0", version)))
        for key, value in settings.items():
            setattr(config, key, value)
        return config

    return make


@pytest.mark.parametrize("version", ["2.0.0", "2.1.0"])
def test_labels_read_by_hand_replace_those_of_the_test_split(hand_read, check_every_row, version):
    cohort = open_cohort(hand_read(version), load_graph("chest"))
    check_every_row(
        cohort, len(IMAGES), REJECTED | {"uncertain finding": 2, "other finding": 1}
    )  # 54205397 is uncertain by hand
    found = dict(zip(cohort.manifest["row"], cohort.manifest["finding"], strict=True))
    assert found == {0: "Pleural Effusion", 2: "No Finding", 3: "Pleural Effusion", 5: "Pleural Effusion"} | {
        8: "Pleural Effusion"
    }
    assert cohort.source["labels read by hand"] == "2 films"
    assert "mimic-cxr-2.1.0-test-set-labeled.csv" in cohort.source["tables"]


def test_which_labels_read_by_hand_count_is_a_setting(hand_read):
    cohort = open_cohort(hand_read(hand_labels="all"), load_graph("chest"))
    found = dict(zip(cohort.manifest["row"], cohort.manifest["finding"], strict=True))
    assert found[2] == found[5] == "Pleural Effusion" and cohort.source["labels read by hand"] == "3 films"
    cohort = open_cohort(hand_read(hand_labels="ignore", split_seed=1), load_graph("chest"))
    assert cohort.rejected == REJECTED and "labels read by hand" not in cohort.source


def test_without_the_official_splits_no_label_is_replaced(hand_read):
    config = hand_read(validation_fraction=0.3, test_fraction=0.3)
    Path(config.root, "mimic-cxr-2.0.0-split.csv").unlink()
    cohort = open_cohort(config, load_graph("chest"))
    assert cohort.source["labels read by hand"] == "0 films" and cohort.rejected == REJECTED


def test_airspace_opacity_is_lung_opacity(hand_read, write_csv):
    opacities = {"finding": {"Lung Opacity": "Pleural Effusion", "No Finding": "No Finding"}}
    config = hand_read(labels=opacities, other={"finding": "No Finding"})
    table = Path(config.root, "mimic-cxr-2.1.0-test-set-labeled.csv")
    row = {"study_id": "50771383"} | dict.fromkeys(CHEXPERT_FINDINGS, "") | {"Airspace Opacity": "1.0"}
    write_csv(table, [{name: cell for name, cell in row.items() if name != "Lung Opacity"}])
    cohort = open_cohort(config, load_graph("chest"))
    assert cohort.manifest.set_index("row")["finding"][5] == "Pleural Effusion"


def test_a_study_that_only_people_labelled_is_kept(hand_read):
    config = hand_read()
    table = Path(config.root, "mimic-cxr-2.0.0-chexpert.csv")
    lines = [line for line in table.read_text().splitlines() if "50771383" not in line]
    table.write_text("\n".join(lines) + "\n")
    assert open_cohort(config, load_graph("chest")).manifest.set_index("row")["finding"][5] == "Pleural Effusion"
