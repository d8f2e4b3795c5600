"""Charts: the graph, the fitted attributes beside the data's, and the curves of training."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalcxr.graph import Graph, Variable

__all__ = ["attribute_chart", "curves_chart", "graph_picture"]

DATA, MODEL = "#5b7fa6", "#d9822b"
PANEL = (2.5, 2.1)  # inches
COLUMNS = 5
POINTS = 1500  # of a scatter
BANDS = 6  # of a continuous parent


def graph_picture(graph: Graph) -> Figure:
    """The graph: causes above effects, each variable with its kind."""
    depth: dict[str, int] = {}
    for name, variable in graph.variables.items():
        depth[name] = 1 + max((depth[parent] for parent in variable.parents), default=-1)
    layers = [[name for name in depth if depth[name] == d] for d in range(max(depth.values()) + 1)]
    widest = max(len(layer) for layer in layers)
    size = (max(2.4, 1.25 * widest), 0.85 * len(layers) - 0.15)
    figure = Figure(figsize=size, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    place = {}
    for d, layer in enumerate(layers):
        for i, name in enumerate(layer):
            # A lone variable between the layers stands aside, so that arrows past it stay visible.
            aside = 0.36 if len(layer) == 1 and 0 < d < len(layers) - 1 else 0.0
            place[name] = (size[0] * ((i + 0.5) / len(layer) + aside), size[1] - 0.35 - 0.85 * d)
    for name, variable in graph.variables.items():
        for parent in variable.parents:
            axes.annotate("", place[name], place[parent], arrowprops=_arrow())
    for name, (x, y) in place.items():
        _draw_node(axes, graph[name], x, y)
    return figure


def attribute_chart(graph: Graph, data: Mapping[str, Any], model: Mapping[str, Any]) -> Figure | None:
    """Each attribute's distribution in the data and in the model, then each attribute by each of its parents.

    `data` and `model` map names to values `(N,)`. None for a graph without attributes.
    """
    data = {name: np.asarray(data[name]) for name in graph.attributes}
    model = {name: np.asarray(model[name]) for name in graph.attributes}
    panels: list[Callable[[Axes], None]] = [_marginal(graph[name], data, model) for name in graph.attributes]
    for name in graph.attributes:
        panels += [_by_parent(parent, graph[name], data, model) for parent in graph.parents(name)]
    return _panels(panels, "data", "model") if panels else None


def curves_chart(
    lines: Sequence[Mapping[str, Any]], variables: Sequence[str], image_unit: str = "bits / dim"
) -> Figure | None:
    """Loss against step, one panel per stage and variable, from the lines of metrics.jsonl.

    `image_unit`: of the image mechanism's loss.
    """
    pairs = list(dict.fromkeys((line["stage"], name) for line in lines for name in variables if name in line))
    if not pairs:
        return None
    panels = [_curve(lines, stage, name, _unit(stage, name, image_unit)) for stage, name in pairs]
    return _panels(panels, "train", "val")


def _panels(panels: Sequence[Callable[[Axes], None]], first: str, second: str) -> Figure:
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.3), facecolor="white", layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, panel in zip(grid, panels, strict=False):
        panel(axes)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles = [grid[0].fill_between([], [], color=colour) for colour in (DATA, MODEL)]
    figure.legend(handles, [first, second], loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return figure


def _marginal(variable: Variable, data: Mapping[str, Any], model: Mapping[str, Any]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        own, made = data[variable.name], model[variable.name]
        axes.set_title(variable.name, fontsize=9, parse_math=False)
        if variable.is_discrete:
            shares = [np.bincount(x.astype(int), minlength=len(variable.labels)) / len(x) for x in (own, made)]
            _bars(axes, variable.labels, shares)
        else:
            low, high = np.quantile(np.concatenate([own, made]), [0.001, 0.999])
            edges = np.linspace(low, high, int(np.clip(1.5 * len(own) ** 0.5, 8, 40)) + 1)
            axes.hist(own, edges, density=True, color=DATA, alpha=0.55)
            axes.hist(made, edges, density=True, color=MODEL, histtype="step", linewidth=1.6)
            axes.set_yticks([])
            axes.set_xlabel(variable.unit, fontsize=7, parse_math=False)

    return draw


def _by_parent(
    parent: Variable, child: Variable, data: Mapping[str, Any], model: Mapping[str, Any]
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.set_title(f"{child.name} by {parent.name}", fontsize=9, parse_math=False)
        if parent.is_discrete or child.is_discrete:
            groups, names = _groups(parent, data[parent.name], model[parent.name])
            label = child.labels[-1] if child.is_discrete else ""
            means = [
                [_mean(child, values[child.name][index == g]) for g in range(len(names))]
                for values, index in zip((data, model), groups, strict=True)
            ]
            _bars(axes, names, means)
            axes.set_ylabel(f"share '{label}'" if label else f"mean, {child.unit}", fontsize=7, parse_math=False)
        else:
            for values, colour in ((data, DATA), (model, MODEL)):
                x, y = values[parent.name][:POINTS], values[child.name][:POINTS]
                axes.scatter(x, y, s=2, color=colour, alpha=0.4, linewidths=0)
            axes.set_ylabel(child.unit, fontsize=7, parse_math=False)
        if not parent.is_discrete:
            axes.set_xlabel(parent.unit, fontsize=7, parse_math=False)

    return draw


def _groups(parent: Variable, *values: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """The group of each row, by label or by band of equal data, and the groups' names."""
    if parent.is_discrete:
        return [x.astype(int) for x in values], list(parent.labels)
    edges = np.quantile(values[0], np.linspace(0, 1, BANDS + 1))
    digits = 0 if edges[-1] - edges[0] > 20 else 1
    names = [f"{low:.{digits}f}–{high:.{digits}f}" for low, high in pairwise(edges)]
    return [np.digitize(x, edges[1:-1]) for x in values], names


def _mean(variable: Variable, values: np.ndarray) -> float:
    if len(values) == 0:
        return np.nan
    last = len(variable.labels) - 1
    return float((values == last).mean() if variable.is_discrete else values.mean())


def _bars(axes: Axes, names: Sequence[str], heights: Sequence[Any]) -> None:
    place = np.arange(len(names))
    for i, (values, colour) in enumerate(zip(heights, (DATA, MODEL), strict=True)):
        axes.bar(place + 0.4 * (i - 0.5), values, 0.38, color=colour)
    slanted = sum(map(len, names)) > 26
    axes.set_xticks(place, names, rotation=25 if slanted else 0, ha="right" if slanted else "center")
    for label in axes.get_xticklabels():
        label.set_parse_math(False)


def _curve(lines: Sequence[Mapping[str, Any]], stage: str, name: str, unit: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        shown: list[float] = []
        for split, colour in (("train", DATA), ("val", MODEL)):
            points = [
                (line["step"], line[name])
                for line in lines
                if line["stage"] == stage and line["split"] == split and line.get(name) is not None
            ]
            if points:
                marker = "o" if split == "val" or len(points) == 1 else None
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, marker=marker, markersize=3)
                shown += [loss for _, loss in points[len(points) // 10 :]]
        if shown and max(shown) > min(shown):
            room = 0.08 * (max(shown) - min(shown))  # the steep start would flatten the rest
            axes.set_ylim(min(shown) - room, max(shown) + room)
        axes.set_title(f"{stage}: {name}{unit}", fontsize=8, parse_math=False)
        axes.set_xlabel("step", fontsize=7)

    return draw


def _unit(stage: str, name: str, of_image: str) -> str:
    if stage == "image" or name in ("slack", "constraint"):
        return f", {of_image}"
    return ", nats" if stage == "attributes" else ""


def _draw_node(axes: Axes, variable: Variable, x: float, y: float) -> None:
    colour = {"continuous": "#e3ecf7", "image": "#f7ead9"}.get(variable.kind, "#e8f2e6")
    box = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "#667788", "linewidth": 0.8}
    axes.text(x, y, variable.name, fontsize=9, ha="center", va="center", bbox=box, parse_math=False, zorder=3)


def _arrow() -> dict[str, Any]:
    return {"arrowstyle": "-|>", "color": "#667788", "linewidth": 1.0, "shrinkA": 12, "shrinkB": 14}
