"""The card: its counts are those of the cohort, and it needs nothing from outside."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from causalcxr.data import DataConfig, prepare_into
from causalcxr.data.card import render_card
from causalcxr.data.histograms import HEIGHT, WIDTH, panels
from causalcxr.data.source import Source, Unusable
from causalcxr.data.summary import BySplit
from causalcxr.graph import Graph, graph_from_dict

N = 900
GRAPH = {
    "description": "A <b>bold</b> graph",
    "variables": {
        "group": {"kind": "categorical", "labels": ["z", "a & b", "m"]},  # class order is not that of the alphabet
        "site": {"kind": "binary", "labels": ["0", "1"]},
        "dose": {"kind": "continuous", "range": [0, 10], "unit": "mg"},
        "image": {"kind": "image", "parents": ["group", "dose"]},
    },
}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_from_dict(GRAPH)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Rows of three a patient; every tenth has an unknown group, and every 45th a dose out of range."""
    rows = np.arange(N)
    group = np.array(["z", "a & b", "m"])[rows % 3]
    return pd.DataFrame(
        {
            "path": [f"/secret/{i}.png" for i in rows],
            "patient_id": [f"patient-{i // 3}" for i in rows],
            "split": np.where(rows < 600, "train", np.where(rows < 750, "val", "test")),
            "group": np.where(rows % 10 == 9, "?", group),
            "site": (rows // 3 % 2).astype(str),
            "dose": np.where(rows % 45 == 0, "11", (rows % 100 / 10).astype(str)),
        }
    )


@pytest.fixture(scope="module")
def folder(graph, table, tmp_path_factory) -> Path:
    def pixels(rows, sizes):
        return [[picture(row, size) for size in sizes] for row in rows]

    def picture(row, size):
        if row % 50 == 1:
            return Unusable("broken image", f"'/secret/{row}.png': <truncated>")
        return np.random.default_rng(row).integers(0, 256, (1, size, size), np.uint8)

    source = Source("rows", {"source": "my <rows>", "root": "/secret"}, {}, lambda: table, pixels)
    return prepare_into(tmp_path_factory.mktemp("out"), DataConfig(size=8), graph, source=source)[0]


@pytest.fixture(scope="module")
def card(folder) -> str:
    return (folder / "card.html").read_text("utf-8")


def cells(card: str, name: str) -> list[list[str]]:
    """The text of a table, row by row; what stands small beside a number is left out."""
    found = re.search(rf'<table id="{name}">.*?</table>', card, re.S)
    assert found, name
    text = re.sub(r"<small.*?</small>", "", found[0], flags=re.S).replace("<br>", "; ")
    root = ElementTree.fromstring(text)
    return [["".join(cell.itertext()).strip() for cell in row] for row in root.iter("tr")]


def kept(table: pd.DataFrame) -> pd.DataFrame:
    rows = table.index
    return table[(rows % 10 != 9) & (rows % 45 != 0) & (rows % 50 != 1)]


def test_rows_and_patients_by_split(card, table):
    expected = kept(table)
    for name, *numbers in cells(card, "splits")[1:]:
        part = expected if name == "all" else expected[expected["split"] == name]
        rows, share, patients, each = numbers
        assert int(rows) == len(part) and share == f"{100 * len(part) / len(expected):.1f} %"
        assert int(patients) == part["patient_id"].nunique() and each == f"{len(part) / int(patients):.2f}"


@pytest.mark.parametrize("name", ["group", "site"])
def test_rows_by_label_in_class_order(card, table, graph, name):
    header, *rows = cells(card, f"labels-{name}")
    assert header == ["class", "label", "train", "val", "test", "all"]
    assert [row[:2] for row in rows] == [[str(i), label] for i, label in enumerate(graph[name].labels)]
    expected = kept(table)
    for _, label, *numbers in rows:
        part = expected[expected[name] == label]
        assert [int(n) for n in numbers] == [(part["split"] == s).sum() for s in ("train", "val", "test")] + [
            len(part)
        ]


def test_numbers_by_split(card, table):
    expected = kept(table).assign(dose=kept(table)["dose"].astype(float))
    for name, *numbers in cells(card, "numbers-dose")[1:]:
        dose = (expected if name == "all" else expected[expected["split"] == name])["dose"]
        wanted = [*np.quantile(dose, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]), dose.mean()]
        assert [float(n) for n in numbers] == pytest.approx(wanted, rel=0.006)  # three digits are shown


def test_reasons_of_rejection(card):
    _, *rows = cells(card, "rejected")
    counts = {row[0]: int(row[1]) for row in rows}
    unknown = [i for i in range(N) if i % 10 == 9]
    outside = [i for i in range(N) if i % 45 == 0 and i % 10 != 9]
    broken = [i for i in range(N) if i % 50 == 1 and i % 45 and i % 10 != 9]
    assert counts == {"other value": len(unknown), "out of range": len(outside), "broken image": len(broken)}
    assert rows[0][3] == "group: '?' maps to no label (90)"
    assert rows[2][3] == f"the file: <truncated> ({len(broken)})"


def test_nothing_from_outside_and_nothing_that_breaks_out(card):
    assert "<script" not in card and "http" not in card.replace("http-equiv", "") and "url(" not in card
    assert re.findall(r'src="(?!data:image/png;base64,)', card) == []
    assert "<b>bold" not in card and "&lt;b&gt;bold" in card and "my &lt;rows&gt;" in card and "a &amp; b" in card
    assert "prefers-color-scheme: dark" in card
    assert "/secret" not in card and "patient-" not in card  # neither places nor patients


def test_the_contact_sheet_shows_every_group_in_each_split(card):
    sheets = re.findall(r'<div class="sheet">(.*?)</div>', card, re.S)
    assert [sheet.count("<img") for sheet in sheets] == [16, 8, 8]
    for sheet in sheets:
        shown = re.findall(r'alt="([^,"]*), site ([01]), dose ([\d.]+)"', sheet)
        assert {(group, site) for group, site, _ in shown} == {
            (g, s) for g in ("z", "a &amp; b", "m") for s in "01"
        }


def test_a_graph_without_an_image_has_a_card(table, tmp_path):
    declared = {"variables": {name: v for name, v in GRAPH["variables"].items() if name != "image"}}
    source = Source("rows", {"source": "rows"}, {}, lambda: table, lambda rows, sizes: [])
    (folder,) = prepare_into(tmp_path, DataConfig(), graph_from_dict(declared), source=source)
    card = (folder / "card.html").read_text("utf-8")
    assert "<img" not in card and cells(card, "splits")[4][1] == str(N - 90 - 20)


def steps(path: str) -> list[float]:
    """Heights of a curve's bins, as shares of the plot's height."""
    return [1 - float(y) / HEIGHT for y in re.findall(r"V([\d.]+)H", path)]


def test_histograms_are_shares_of_each_label(graph):
    manifest = pd.DataFrame(
        {
            "split": "train",
            "group": ["z"] * 10 + ["m"] * 4,
            "site": ["0", "1"] * 7,
            "dose": np.array([0] * 5 + [1] * 5 + [8] * 3 + [0], np.float32),
        }
    )
    by_group, by_site = panels(graph, BySplit(manifest))
    assert (by_group.title, by_group.unit) == ("dose by group", "mg")
    assert [name for name, _ in by_group.curves] == ["z (10)", "a & b (0)", "m (4)"]
    heights = {name: steps(path) for name, path in by_group.curves}
    width = 0.5  # of a bin: 8 / 32 is 0.25, the next round number 0.5
    assert len(heights["z (10)"]) == 17 and by_group.across[:2] == [
        (0.0, "0"),
        (pytest.approx(WIDTH / 8.5, abs=0.1), "1"),
    ]
    expected = np.zeros(17)
    expected[[0, int(1 / width)]] = 0.5 / 0.75
    np.testing.assert_allclose(heights["z (10)"], expected, atol=1e-3)
    expected = np.zeros(17)
    expected[[0, int(8 / width)]] = np.array([0.25, 0.75]) / 0.75
    np.testing.assert_allclose(heights["m (4)"], expected, atol=1e-3)
    assert heights["a & b (0)"] == [0] * 17
    assert by_site.title == "dose by site"


def test_many_labels_get_a_bar_each():
    labels = [f"label {i}" for i in range(6)]
    graph = graph_from_dict(
        {
            "variables": {
                "kind": {"kind": "categorical", "labels": labels},
                "age": {"kind": "continuous", "range": [0, 100]},
            }
        }
    )
    age = np.concatenate([np.linspace(0, 100, 21), np.linspace(20, 60, 41)]).astype(np.float32)
    manifest = pd.DataFrame({"split": "train", "kind": ["label 1"] * 21 + ["label 4"] * 41, "age": age})
    (panel,) = panels(graph, BySplit(manifest))
    assert panel.curves == [] and [bar.name for bar in panel.bars][1] == "label 1 (21)"
    scale = WIDTH / 105  # bins of 5 from 0, one beyond 100
    assert panel.bars[0].places == ()
    assert panel.bars[1].places == pytest.approx([q * scale for q in (5, 25, 50, 75, 95)], abs=0.1)
    assert panel.bars[4].places == pytest.approx([q * scale for q in (22, 30, 40, 50, 58)], abs=0.1)


def test_what_contradicts_itself_and_what_pixels_say_are_warnings(graph, table):
    manifest = table.assign(row=np.arange(N), dose=np.float32(1) + np.arange(N, dtype=np.float32) % 9)
    manifest = manifest[manifest["group"] != "?"]
    described = {
        "source": {"source": "x", "noted": {"studies of <two> minds": 3}},
        **{"graph": {}, "size": 8, "read": N, "rejected": {}, "data_hash": "0", "versions": {}},
        "contradictions": {"patients with more than one <sex>": 1234},
        "pixels": {"little of the stated range": 7},
    }
    card = render_card(described, graph, manifest, pd.DataFrame({"reason": [], "detail": []}), None)
    warnings = re.findall(r'<div class="notice concern">(.*?)</div>', card)
    for line in (
        "patients with more than one &lt;sex&gt;: 1,234",
        "studies of &lt;two&gt; minds: 3",
        "little of the stated range: 7",
    ):
        assert line in warnings
    assert "<dt>noted</dt>" not in card
    assert "Train, val and test do not differ beyond chance, or by 0.1 of the rows, in group, site, dose." in card
    manifest["site"] = np.where(manifest["split"] == "test", "0", manifest["site"])
    card = render_card(described, graph, manifest, pd.DataFrame({"reason": [], "detail": []}), None)
    assert "Train, val and test differ in site. They do not differ beyond chance" in card


def test_no_table_is_wider_than_a_phone(card):
    """Tables scroll inside their own box, columns may shrink, and none demands more than 360 pixels."""
    tables = re.findall(r'(<div class="scroll">)?<table', card)
    assert tables and all(tables)
    assert ".scroll { overflow-x: auto; }" in card and ".pair > div { min-width: 0; max-width: 100%; }" in card
    widths = [int(px) for px in re.findall(r"minmax\((?:min\()?(\d+)px", card)]
    assert "minmax(min(350px, 100%), 1fr)" in card and max(w for w in widths if w != 350) <= 360
