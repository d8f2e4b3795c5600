"""From marks and lists of findings to the label that the graph has for them."""

import itertools

import pandas as pd
import pytest

from causalcxr.data import DataConfig
from causalcxr.data.findings import Mentions, label_findings, lists, marks, one_mark_a_study, prevalence
from causalcxr.data.source import Unusable
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

NAMES = ("No Finding", "Pleural Effusion", "Edema")


def test_every_combination_of_marks_is_read():
    combinations = list(itertools.product(["1.0", "0.0", "-1.0", ""], repeat=3)) * 2
    columns = {
        name: pd.Series(column) for name, column in zip(NAMES, zip(*combinations, strict=True), strict=True)
    }
    statements = marks(columns, "a table")
    assert len(statements.distinct) == 27  # a blank is a zero
    for row, cells in enumerate(combinations):
        said = statements.distinct[statements.which[row]]
        assert said.positive == {name for name, cell in zip(NAMES, cells, strict=True) if cell == "1.0"}
        assert said.uncertain == {name for name, cell in zip(NAMES, cells, strict=True) if cell == "-1.0"}


def test_another_mark_is_an_error():
    with pytest.raises(DataError, match="a table: '2' in column 'Edema'; expected 1, 0, -1 or nothing"):
        marks({"Edema": pd.Series(["1", "2"])}, "a table")


@pytest.mark.parametrize(
    ("cell", "positive"),
    [
        ("Effusion|Mass", {"Pleural Effusion", "Mass"}),
        ("['Effusion', ' Mass', '', 'Mass']", {"Pleural Effusion", "Mass"}),
        ('["Mass\'s"]', {"Mass's"}),
        ("[]", set()),
        ("", set()),
    ],
)
def test_lists_of_findings(cell, positive):
    statements = lists(pd.Series([cell]), {"Effusion": "Pleural Effusion"})
    assert statements.distinct[statements.which[0]] == Mentions(frozenset(positive))


@pytest.mark.parametrize(
    ("positive", "uncertain", "reject", "ones", "zeros"),
    [
        ({"Pleural Effusion"}, set(), "Pleural Effusion", "Pleural Effusion", "Pleural Effusion"),
        ({"Pleural Effusion", "Edema"}, set(), "Pleural Effusion", "Pleural Effusion", "Pleural Effusion"),
        ({"No Finding"}, {"Edema"}, "No Finding", "No Finding", "No Finding"),  # edema doesn't count
        (set(), {"Pleural Effusion"}, "uncertain finding", "Pleural Effusion", "other finding"),
        ({"No Finding"}, {"Pleural Effusion"}, "uncertain finding", "ambiguous", "No Finding"),
        ({"No Finding", "Pleural Effusion"}, set(), "ambiguous", "ambiguous", "ambiguous"),
        ({"Edema"}, set(), "other finding", "other finding", "other finding"),
        (set(), set(), "other finding", "other finding", "other finding"),
    ],
)
def test_what_becomes_of_an_image(positive, uncertain, reject, ones, zeros):
    cells = {name: "1" if name in positive else "-1" if name in uncertain else "" for name in NAMES}
    statements = marks({name: pd.Series([cell]) for name, cell in cells.items()}, "a table")
    for way, expected in {"reject": reject, "positive": ones, "negative": zeros}.items():
        unusable: dict[int, Unusable] = {}
        config = DataConfig(uncertain=way)
        finding = label_findings(unusable, statements, NAMES, config, load_graph("chest"), "a table")
        assert (unusable[0].reason if unusable else finding[0]) == expected


def test_the_first_reason_stays():
    unusable = {0: Unusable("other view", "lateral")}
    label_findings(unusable, lists(pd.Series(["Edema"]), {}), NAMES, DataConfig(), load_graph("chest"), "a table")
    assert unusable[0].reason == "other view"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("any", ["1", "1", "-1", "-1", "0", "1", "1"]),
        ("all", ["0", "0", "0", "0", "0", "1", "1"]),
        ("first", ["0", "0", "-1", "-1", "0", "1", "1"]),
    ],
)
def test_the_films_of_a_study_get_one_mark(how, expected):
    cells = pd.Series(["", "1.0", "-1", "0", "0.0", "1", "1.0"])
    studies = pd.Series(["a", "a", "b", "b", "c", "d", "d"])
    columns, differing = one_mark_a_study({"Edema": cells, "Mass": cells.where(cells == "x", "")}, studies, how)
    assert columns["Edema"].tolist() == expected and set(columns["Mass"]) == {"0"}
    assert differing == 2  # a blank is a zero, and 1 is 1.0


def test_an_odd_mark_is_left_to_be_refused():
    columns, _ = one_mark_a_study({"Edema": pd.Series(["1", "2"])}, pd.Series(["a", "a"]), "any")
    assert columns["Edema"].tolist() == ["1", "2"]


def test_prevalence():
    statements = lists(pd.Series(["Edema", "Edema|Mass", "", "Mass", "Edema"]), {})
    assert prevalence(statements) == {"Edema": "60.0 %", "Mass": "40.0 %"}
