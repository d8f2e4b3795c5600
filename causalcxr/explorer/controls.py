"""What the page needs to know of a graph: a control for every attribute, and where its nodes are drawn."""

import math
from typing import Any

import torch

from causalcxr.graph import Graph, Variable
from causalcxr.values import Batch

__all__ = ["controls", "drawing"]

WIDTH, MARGIN, GAP = 320.0, 34.0, 58.0  # of the drawing; GAP from node to node in a column


def controls(graph: Graph, train: Batch) -> list[dict[str, Any]]:
    """For every attribute its kind, labels or range, step and unit, and what it reaches.

    `usual`: the 5 % and the 95 % quantile of a number in the training data.
    """
    return [_control(graph, graph[name], train) for name in graph.attributes]


def drawing(graph: Graph) -> dict[str, Any]:
    """Nodes with their places, causes on the left, and the edges between them, as pairs of places."""
    depth: dict[str, int] = {}
    for name, variable in graph.variables.items():
        depth[name] = 1 + max((depth[parent] for parent in variable.parents), default=-1)
    deepest, places = max(depth.values()) or 1, {}
    most = max(3, *(list(depth.values()).count(level) for level in range(deepest + 1)))
    height = GAP * most + 30.0
    for level in range(deepest + 1):
        column = [name for name in graph.variables if depth[name] == level]
        for i, name in enumerate(column):
            x, y = MARGIN + (WIDTH - 2 * MARGIN) * level / deepest, height * (i + 0.5) / len(column)
            if 0 < level < deepest and len(column) == 1:
                y = height - 26.0  # so that edges from causes to the image pass above it
            places[name] = (round(x, 1), round(y, 1))
    edges = [
        {"cause": parent, "effect": name, "line": _shortened(places[parent], places[name])}
        for name, variable in graph.variables.items()
        for parent in variable.parents
    ]
    nodes = [{"name": name, "x": x, "y": y, "image": name == graph.image} for name, (x, y) in places.items()]
    return {"width": WIDTH, "height": height, "nodes": nodes, "edges": edges}


def _control(graph: Graph, variable: Variable, train: Batch) -> dict[str, Any]:
    reaches = [name for name in graph.variables if name in graph.descendants(variable.name)]
    found: dict[str, Any] = {"name": variable.name, "about": variable.description, "reaches": reaches}
    if variable.is_discrete:
        return found | {"labels": list(variable.labels)}
    low, high = variable.bounds
    quantiles = torch.tensor([0.05, 0.95], dtype=torch.float64)
    usual = torch.quantile(train[variable.name].double()[:1_000_000], quantiles).tolist()
    return found | {"low": low, "high": high, "step": _step(high - low), "unit": variable.unit, "usual": usual}


def _step(width: float) -> float:
    """1, 2 or 5 times a power of ten, so that a range has at most a hundred steps."""
    power = 10.0 ** math.floor(math.log10(width / 100))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width / 100 * (1 - 1e-9))


def _shortened(start: tuple[float, float], end: tuple[float, float], radius: float = 24.0) -> list[float]:
    """An edge from the rim of one node to the rim of the other."""
    length = math.dist(start, end)
    x, y = ((end[i] - start[i]) / length for i in range(2))
    ends = (start[0] + radius * x, start[1] + radius * y, end[0] - radius * x, end[1] - radius * y)
    return [round(value, 1) for value in ends]
