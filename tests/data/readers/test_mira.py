"""MIRA's tables: codes mean what the configuration says, never what is usual."""

import re
from pathlib import Path

import pytest
import yaml

from causalcxr.data import DataConfig, open_cohort
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

PAGE = Path(__file__).parents[3] / "docs/data/mira.md"
PRESET = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S)[0])
LABELS = PRESET["data"]["labels"]  # what the page shows is what the tests read
ROWS = [  # split, subject, age, sex, race, disease
    ("train", "10000032", "52.0", "1", "0", "0"),
    ("train", "10000764", "86.0", "0", "0", "1"),
    ("train", "11000898", "79.0", "1", "2", "2"),
    ("validate", "12000935", "40.0", "0", "1", "1"),
    ("test", "13000980", "61.0", "1", "2", "0"),
    ("test", "14001038", "", "1", "2", "0"),
]
REJECTED = {"other finding": 1, "blank value": 1}


@pytest.fixture
def mira(tmp_path, write_csv, draw):
    """Make MIRA's folder: one table with a split column, or three tables; whole numbers perhaps as 1.0."""

    def make(table=PRESET["data"]["table"], parts=False, decimals="", name="root", subject="subject_id"):
        root = tmp_path / name
        rows = []
        for i, (split, person, age, sex, race, disease) in enumerate(ROWS):
            file = f"preproc_224x224/s{i}.jpg"
            draw(root / file, i)
            codes = {"race_label": race, "sex_label": sex, "disease_label": disease}
            codes = {column: f"{code}{decimals}" for column, code in codes.items()}
            rows.append({subject: person, "path_preproc": file, "age": age, "split": split} | codes)
        if parts:
            for part, split in {"train": "train", "val": "validate", "test": "test"}.items():
                own = [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == split]
                write_csv((root / table).with_suffix(f".{part}.csv"), own)
        else:
            write_csv(root / table, rows)
        return DataConfig(
            source="mira", root=str(root), table=table, cache=str(tmp_path / "cache"), size=16, labels=LABELS
        )

    return make


def test_every_image_is_kept_or_rejected_for_its_reason(mira, check_every_row):
    cohort = open_cohort(mira(), load_graph("chest"))
    check_every_row(cohort, len(ROWS), REJECTED)
    assert cohort.manifest[["split", "sex", "race", "age", "finding"]].values.tolist() == [
        ["train", "female", "white", 52, "No Finding"],
        ["train", "male", "white", 86, "Pleural Effusion"],
        ["val", "male", "asian", 40, "Pleural Effusion"],
        ["test", "female", "black", 61, "No Finding"],
    ]
    assert cohort.split("val").attributes["race"].tolist() == [1]


@pytest.mark.parametrize("form", [{"parts": True}, {"decimals": ".0"}, {"subject": "patient_id"}])
def test_all_forms_of_the_table_agree(mira, form):
    first = open_cohort(mira(), load_graph("chest"))
    other = open_cohort(mira(name="other", **form), load_graph("chest"))
    assert other.data_hash == first.data_hash and other.rejected == first.rejected


def test_another_order_of_the_codes_gives_other_people(mira):
    config = mira()
    config.labels = LABELS | {"race": {"0": "black", "1": "asian", "2": "white"}}
    cohort = open_cohort(config, load_graph("chest"))
    assert cohort.manifest["race"].tolist() == ["black", "black", "asian", "white"]


def test_words_need_no_meaning(mira):
    config = mira()
    table = Path(config.root, config.table)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    column = lines[0].index("sex_label")
    for line in lines[1:]:
        line[column] = {"0": "male", "1": "female"}[line[column]]
    table.write_text("\n".join(map(",".join, lines)))
    config.labels = {name: LABELS[name] for name in ("race", "finding")}
    assert open_cohort(config, load_graph("chest")).manifest["sex"].tolist() == [
        "female",
        "male",
        "male",
        "female",
    ]


@pytest.mark.parametrize("attribute", ["sex", "race", "finding"])
def test_codes_without_a_meaning_are_an_error(mira, attribute):
    config = mira()
    config.labels = {name: mapping for name, mapping in LABELS.items() if name != attribute}
    with pytest.raises(DataError) as error:
        open_cohort(config, load_graph("chest"))
    assert f"set data.labels.{attribute}={{'0': ..., '1': ..." in str(error.value)
    assert ", ".join(load_graph("chest")[attribute].labels) in str(error.value)


def test_a_third_class_of_findings(mira, check_every_row):
    config = mira()
    config.other = {"finding": "No Finding"}
    check_every_row(open_cohort(config, load_graph("chest")), len(ROWS), {"blank value": 1})


def test_what_cannot_be_read_is_one_clear_line(mira):
    config = mira(parts=True)
    Path(config.root, "mimic.sample.val.csv").unlink()
    with pytest.raises(DataError, match=r"no table .*mimic.sample.csv', nor mimic.sample.val.csv beside it"):
        open_cohort(config, load_graph("chest"))
    config = mira(name="other")
    table = Path(config.root, config.table)
    table.write_text(table.read_text().replace("race_label", "race"))
    with pytest.raises(DataError, match="has no column 'race_label'"):
        open_cohort(config, load_graph("chest"))
