"""Graphs: the shipped ones, what they imply, and every refusal in one line."""

import pytest
import yaml

from causalcxr.graph import graph_from_dict, load_graph, shipped_graphs
from causalcxr.support.errors import GraphError

BINARY = {"kind": "binary", "labels": ["no", "yes"]}


def test_shipped_graphs_declare_the_papers_edges():
    assert set(shipped_graphs()) == {"chest", "chest_without_race", "morphomnist", "nih"}
    chest = load_graph("chest")
    assert {name: set(v.parents) for name, v in chest.variables.items()} == {
        "sex": set(),
        "race": set(),
        "age": set(),
        "finding": {"age"},
        "image": {"sex", "race", "age", "finding"},
    }
    assert len(chest["race"].labels) == 3
    assert load_graph("morphomnist")["intensity"].parents == ("thickness",)
    assert load_graph("nih").image is None


def test_without_the_image_the_attributes_are_left():
    chest, attributes = load_graph("chest"), load_graph("chest").without_image()
    assert (attributes.image, attributes.attributes) == (None, chest.attributes)
    assert all(attributes[name] == chest[name] for name in chest.attributes)
    assert load_graph("nih").without_image() == load_graph("nih")


def test_descendants_follow_the_edges():
    # a -> b -> d ; a -> c ; e stands alone
    graph = graph_from_dict(
        {
            "variables": {
                "d": {**BINARY, "parents": ["b"]},
                "b": {**BINARY, "parents": ["a"]},
                "c": {**BINARY, "parents": ["a"]},
                "a": BINARY,
                "e": BINARY,
            }
        }
    )
    assert list(graph.variables).index("a") < list(graph.variables).index("b") < list(graph.variables).index("d")
    assert graph.descendants("a") == {"b", "c", "d"}
    assert graph.descendants("b") == {"d"}
    assert graph.descendants("d", "e") == frozenset()
    assert graph.descendants("a", "b") == {"b", "c", "d"}


def test_declaration_round_trips():
    for name in shipped_graphs():
        graph = load_graph(name)
        assert graph_from_dict(graph.to_dict()) == graph


def test_another_graph_is_only_a_file(tmp_path):
    path = tmp_path / "retina.yaml"
    declared = {
        "variables": {
            "grade": {"kind": "categorical", "labels": ["0", "1", "2", "3", "4"], "parents": ["pressure"]},
            "pressure": {"kind": "continuous", "range": [60, 220], "unit": "mmHg"},
            "fundus": {"kind": "image", "channels": 3, "parents": ["grade", "pressure"]},
        }
    }
    path.write_text(yaml.safe_dump(declared))
    graph = load_graph(path)
    assert (graph.name, graph.image, graph.attributes) == ("retina", "fundus", ("pressure", "grade"))


REFUSED = {
    "cycle": ({"a": {**BINARY, "parents": ["b"]}, "b": {**BINARY, "parents": ["a"]}}, "cycle: a -> b -> a"),
    "self-loop": ({"a": {**BINARY, "parents": ["a"]}}, "cycle: a -> a"),
    "unknown parent": (
        {"age": BINARY, "b": {**BINARY, "parents": ["aga"]}},
        "unknown parent 'aga'; did you mean 'age'",
    ),
    "unknown key": ({"a": {**BINARY, "parent": ["b"]}}, "unknown key 'parent'; did you mean 'parents'"),
    "unknown kind": (
        {"a": {"kind": "contnuous", "range": [0, 1]}},
        "unknown kind 'contnuous'; did you mean 'continuous'",
    ),
    "duplicate label": ({"a": {"kind": "binary", "labels": ["x", "x"]}}, "duplicate label 'x'"),
    "range upside down": ({"a": {"kind": "continuous", "range": [90, 20]}}, "range upside down"),
    "range not finite": ({"a": {"kind": "continuous", "range": [0, float("inf")]}}, "not finite"),
    "range missing": ({"a": {"kind": "continuous"}}, "'range' must be [low, high]"),
    "second image": ({"x": {"kind": "image"}, "y": {"kind": "image"}}, "a second image 'y'"),
    "image with child": (
        {"a": BINARY, "x": {"kind": "image", "parents": ["a"]}, "b": {**BINARY, "parents": ["x"]}},
        "image 'x' has a child, 'b'",
    ),
    "image without parents": ({"x": {"kind": "image"}}, "image 'x' has no parents"),
    "three labels for binary": ({"a": {"kind": "binary", "labels": ["x", "y", "z"]}}, "needs exactly 2 labels"),
    "labels on a number": (
        {"a": {"kind": "continuous", "range": [0, 1], "labels": ["x"]}},
        "'labels' does not belong",
    ),
    "parent twice": ({"a": BINARY, "b": {**BINARY, "parents": ["a", "a"]}}, "has 'a' twice"),
    "unknown mechanism": ({"a": {**BINARY, "mechanism": "splin"}}, "unknown mechanism 'splin'"),
    "no variables": ({}, "at least one variable"),
    "channels": ({"x": {"kind": "image", "channels": 0}}, "'channels' must be a whole number above 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line_that_names_the_thing(name):
    variables, expected = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        graph_from_dict({"variables": variables})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("variables: [", "not valid YAML"),
        ("variables:\n  a: {kind: binary, labels: [x, y]}\n  a: {kind: binary, labels: [x, y]}", "given twice"),
        ("- a", "expected a mapping"),
        ("variables: {}\nvariabels: {}", "unknown key 'variabels'"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, expected):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(GraphError, match=expected) as caught:
        load_graph(path)
    assert "\n" not in str(caught.value)


def test_unknown_graph_names_the_nearest():
    with pytest.raises(GraphError, match="did you mean 'chest'"):
        load_graph("chets")
