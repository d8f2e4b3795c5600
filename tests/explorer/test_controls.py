"""Controls are made from any graph."""

import itertools
import math

import pytest
import torch

from causalcxr.explorer.controls import controls, drawing
from causalcxr.graph import load_graph, shipped_graphs

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
    assert all(math.dist(a, b) > RADIUS for a, b in itertools.combinations(places, 2))
    assert len(drawn["edges"]) == sum(len(variable.parents) for variable in graph.variables.values())
