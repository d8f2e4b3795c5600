"""Cells of a table: numbers, ages with units, labels in another case, columns, and who is who."""

import numpy as np
import pandas as pd
import pytest

from causalcxr.data import DataConfig
from causalcxr.data.source import Source
from causalcxr.data.table import usable_rows
from causalcxr.graph import graph_from_dict
from causalcxr.support.errors import DataError

GRAPH = graph_from_dict(
    {
        "variables": {
            "sex": {"kind": "binary", "labels": ["female", "male"]},
            "age": {"kind": "continuous", "range": [0, 100], "unit": "years"},
            "dose": {"kind": "continuous", "range": [0, 2000], "unit": "mg"},
        }
    }
)


def read(config: DataConfig | None = None, **columns):
    """The usable rows and the rejected ones of a table whose other columns are good."""
    n = max(map(len, columns.values()))
    good = {"patient_id": [f"p{i}" for i in range(n)], "split": ["train"] * n, "sex": ["female"] * n}
    table = pd.DataFrame(good | {"age": ["50"] * n, "dose": ["1"] * n} | columns, dtype=str)
    source = Source("a table", {}, {}, lambda: table, lambda rows, sizes: [])
    return usable_rows(config or DataConfig(), GRAPH, source)


def number(name: str, *cells: str) -> list[float | str]:
    """What becomes of each cell: a number, or the reason why not."""
    rows, rejected = read(**{name: list(cells)})
    found = dict(zip(rows["row"], rows[name].astype(float).round(4), strict=True))
    return [found.get(i) or next(row.reason for row in rejected if row.row == i) for i in range(len(cells))]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        *[(text, 45) for text in ("045Y", "45Y", "45y", "45", "45.0", "45,0", "45 years", "45 yrs old", "4.5e1")],
        *[("018M", 1.5), ("18 months", 1.5), ("003W", 21 / 365.25), ("010D", 10 / 365.25), ("45,5", 45.5)],
        *[("45M", "not a number"), ("018m", 1.5)],  # a man of 45, or months: only as DICOM writes it
        *[(text, "not a number") for text in ("4_5", "45 apples", "forty", "45-49", "0x2d", "90+")],
        *[("413", "out of range"), ("999Y", "out of range"), ("-inf", "out of range"), ("#N/A", "blank value")],
    ],
)
def test_ages(cell, expected):
    (found,) = number("age", cell)
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-4))


def test_units_are_those_of_years_only():
    assert number("dose", "045Y", "45") == ["not a number", 45]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["45,5", "0,125", "46"], [45.5, 0.125, 46]),
        (["1,234"], ["not a number"]),  # 1.234 or 1234
        (["1,234", "45,5"], [1.234, 45.5]),  # the column shows what its commas mean
        (["1,2345", "1.234"], [1.2345, 1.234]),
        (["1.234,5"], ["not a number"]),
    ],
)
def test_decimal_commas(cells, expected):
    assert number("dose", *cells) == expected


@pytest.mark.parametrize("cell", ["60-64", "90+", "85 or more", ">89"])
def test_a_band_says_what_to_do(cell):
    assert read(age=[cell])[1][0].detail == f"age: '{cell}' is a band; write one number, such as its middle"


def test_a_comma_of_two_meanings_says_what_to_do():
    rejected = read(dose=["1,234"] * 2)[1]
    assert rejected[0].detail == "dose: '1,234' has a comma that may part decimals or thousands; write a point"


@pytest.mark.parametrize("cell", ["female", "FEMALE", "Female", " female "])
def test_labels_in_another_case(cell):
    assert read(sex=[cell])[0]["sex"].tolist() == ["female"]


def test_labels_of_a_mapping_in_another_case():
    config = DataConfig(labels={"sex": {"F": "female", "M": "male", "m?": "male", "U": "male", "u": "female"}})
    rows, rejected = read(config, sex=["f", "m", "F", "U", "u", "FEMALE"])
    assert rows["sex"].tolist() == ["female", "male", "female", "male", "female", "female"]
    assert rejected == []  # a label of the graph is itself, whatever else is mapped to it


def test_a_label_of_the_graph_is_no_other_value():
    config = DataConfig(labels={"sex": {"F": "female"}}, other={"sex": "female"})
    assert read(config, sex=["male", "F", "x"])[0]["sex"].tolist() == ["male", "female", "female"]


def test_a_case_that_two_labels_share_is_not_guessed():
    config = DataConfig(labels={"sex": {"Xx": "female", "xX": "male"}})
    rows, rejected = read(config, sex=["Xx", "xX", "XX"])
    assert rows["sex"].tolist() == ["female", "male"] and rejected[0].reason == "other value"


@pytest.mark.parametrize("written", ["Patient ID", "patient-id", " PATIENT_ID "])
def test_columns_with_other_spaces_and_dashes(written):
    table = pd.DataFrame({written: ["a"], "sex": ["male"], "age": ["50"], "dose": ["1"]})
    source = Source("a table", {}, {}, lambda: table, lambda rows, sizes: [])
    assert usable_rows(DataConfig(), GRAPH, source)[0]["patient_id"].tolist() == ["a"]


def test_columns_in_another_case():
    table = pd.DataFrame({"Patient_ID": ["a"], "SPLIT": ["train"], "Sex": ["male"], "AGE": ["50"], "dose": ["1"]})
    source = Source("a table", {}, {}, lambda: table, lambda rows, sizes: [])
    rows, rejected = usable_rows(DataConfig(), GRAPH, source)
    assert rejected == [] and rows["sex"].tolist() == ["male"] and rows["split"].tolist() == ["train"]
    with pytest.raises(DataError, match="no column 'sex'"):  # which of the two?
        usable_rows(
            DataConfig(),
            GRAPH,
            Source(
                "a table", {}, {}, lambda: table.assign(sex="x").rename(columns={"sex": "SEX"}), lambda r, s: []
            ),
        )


SAME = [("123", "123.0"), ("123", "0123"), ("0", "000.0"), ("P7", "p7"), (" a  b", "a b "), ("１２", "12")]
OTHERS = [("123", "1230"), ("p7", "p07"), ("12.5", "125"), ("a", "b"), ("0123a", "123a")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_person_written_in_two_ways_is_one(one, other):
    rows, _ = read(patient_id=[one, "x", other])
    assert rows["patient_id"].tolist() == [one.strip(), "x", one.strip()]
    assert list(rows.attrs["noted"].values()) == [1]
    with pytest.raises(DataError) as error:
        read(patient_id=[one, other], split=["train", "test"])
    message = str(error.value)
    assert f"'{one.strip()}' is in train and, written '{other.strip()}', in test" in message
    assert "a patient belongs to one split (if they are two people: data.patient_spelling=exact)" in message
    exact = DataConfig(patient_spelling="exact")
    rows, _ = read(exact, patient_id=[one, other], split=["train", "test"])
    assert rows["patient_id"].tolist() == [one.strip(), other.strip()] and rows.attrs["noted"] == {}


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_people_stay_others(one, other):
    rows, _ = read(patient_id=[one, other], split=["train", "test"])
    assert rows["patient_id"].tolist() == [one, other] and rows.attrs["noted"] == {}


def test_all_spellings_of_a_person_are_drawn_into_one_split():
    names = [str(i) for i in range(200)]
    written = [*names, *(f"00{name}.0" for name in names)]
    n = len(written)
    table = pd.DataFrame({"patient_id": written, "sex": ["male"] * n, "age": ["50"] * n, "dose": ["1"] * n})
    source = Source("a table", {}, {}, lambda: table, lambda rows, sizes: [])
    rows, _ = usable_rows(DataConfig(), GRAPH, source)
    assert rows["split"][:200].tolist() == rows["split"][200:].tolist()
    assert rows["split"].nunique() == 3 and rows["patient_id"].nunique() == 200
    again = Source("a table", {}, {}, lambda: table[200:].reset_index(drop=True), lambda rows, sizes: [])
    assert usable_rows(DataConfig(), GRAPH, again)[0]["split"].tolist() == rows["split"][200:].tolist()


def test_rounded_ids_are_refused():
    with pytest.raises(DataError, match=r"patient '1.23E\+11' is a number that a spreadsheet has rounded; export"):
        read(patient_id=["1.23E+11", "a"])
    assert len(read(DataConfig(patient_spelling="exact"), patient_id=["1.23E+11", "a"])[0]) == 2


def test_contradictions_are_counted():
    rows, rejected = read(
        patient_id=["a", "a", "b", "b", "c", "c"],
        study_id=["1", "1", "1", "2", "", ""],  # a study is named within its patient
        sex=["male", "female", "male", "female", "male", "?"],
        age=["50", "50", "60", "61", "40", "40"],
    )
    assert len(rejected) == 1
    assert rows.attrs["noted"] == {
        "patients with more than one sex": 2,
        "studies whose films have more than one sex": 1,
    }


def test_an_age_that_changes_within_a_study_is_counted():
    ages = ["50", "51", "60", "60.0", "70", "80"]
    rows, _ = read(patient_id=["a", "a", "b", "b", "c", "c"], study_id=["1", "1", "1", "1", "1", "2"], age=ages)
    assert rows.attrs["noted"] == {"studies whose films have more than one age": 1}


def test_a_table_of_studies_without_people():
    rows, _ = read(DataConfig(columns={"patient_id": "study_id"}), study_id=["1", "2"], sex=["male", "female"])
    assert rows["patient_id"].tolist() == ["1", "2"] and rows.attrs["noted"] == {}


def test_the_count_of_distinct_cells_bounds_the_work():
    """A long column of few values: each is read once."""
    ages = np.random.default_rng(0).integers(1, 99, 20_000).astype(str).tolist()
    rows, rejected = read(age=ages)
    assert rejected == [] and rows["age"].tolist() == [float(age) for age in ages]
