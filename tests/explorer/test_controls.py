"""Controls are made from any graph."""

import itertools
import math

import pytest
import torch

from causalcxr.explorer.controls import controls, drawing
from causalcxr.graph import graph_from_dict, load_graph, shipped_graphs

RADIUS = 24


def test_controls_of_the_chest_graph() -> None:
    train = {"age": torch.linspace(20, 90, 71)}
    found = {one["name"]: one for one in controls(load_graph("chest"), train)}
    assert found["sex"]["labels"] == ["female", "male"] and found["sex"]["reaches"] == ["image"]
    age = found["age"]
    assert (age["low"], age["high"], age["step"], age["unit"]) == (18, 100, 1, "years")
    assert age["usual"] == pytest.approx([23.5, 86.5]) and age["reaches"] == ["finding", "image"]


@pytest.mark.parametrize("name", sorted(shipped_graphs()))
def test_every_node_has_a_place_of_its_own(name: str) -> None:
    graph = load_graph(name)
    drawn = drawing(graph)
    places = [(node["x"], node["y"]) for node in drawn["nodes"]]
    assert {node["name"] for node in drawn["nodes"]} == set(graph.variables)
    assert all(RADIUS <= x <= drawn["width"] - RADIUS and 0 <= y <= drawn["height"] for x, y in places)
    assert all(math.dist(a, b) > 2 * RADIUS for a, b in itertools.combinations(places, 2))
    assert len(drawn["edges"]) == sum(len(variable.parents) for variable in graph.variables.values())


def test_many_in_between_stand_apart() -> None:
    """One cause of five attributes, all causes of the image; then five causes."""
    numbers = {"kind": "continuous", "range": [0, 1]}
    names = [f"a{i}" for i in range(5)]
    below = {name: numbers | {"parents": ["root"]} for name in names}
    declared = {"root": numbers, **below, "image": {"kind": "image", "parents": names}}
    for variables in (
        declared,
        dict.fromkeys(names, numbers) | {"image": {"kind": "image", "parents": names}},
    ):
        places = [(node["x"], node["y"]) for node in drawing(graph_from_dict({"variables": variables}))["nodes"]]
        assert all(math.dist(a, b) > 2 * RADIUS for a, b in itertools.combinations(places, 2))


def test_a_slider_reaches_both_ends() -> None:
    """A hundred steps at most, whatever the range."""
    graph = graph_from_dict(
        {
            "variables": {
                "x": {"kind": "continuous", "range": [-3.3, 4.07]},
                "image": {"kind": "image", "parents": ["x"]},
            }
        }
    )
    step = controls(graph, {"x": torch.zeros(3)})[0]["step"]
    assert step == pytest.approx(0.1) and (4.07 + 3.3) / step <= 100
