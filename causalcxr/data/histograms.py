"""Histograms of continuous attributes by label, as shapes that a page draws itself: light, dark, at any width."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from causalcxr.data.summary import BySplit
from causalcxr.graph import Graph, Variable

__all__ = ["TOP", "WIDTH", "Bar", "Panel", "panels"]

WIDTH, HEIGHT = 300, 150  # of the plot, in units of the drawing
TOP = 8  # room above it
BINS = 32  # at most
ACROSS, UP = 10, 6  # ticks along the axes, at most
CURVES = 4  # labels up to which histograms lie over one another; more get a row each
ROW, LETTER = 15, 6  # height of such a row, width of a letter of its name
SPREAD = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Bar:
    """The quantiles of one label, in the drawing's units: 5 to 95 % and 25 to 75 % around the median."""

    height: float
    name: str
    places: tuple[float, ...]  # of SPREAD; empty for a label without rows


@dataclass(frozen=True)
class Panel:
    """One continuous attribute by one discrete one: a curve for each label, or a bar for each if they are many."""

    title: str
    unit: str
    across: list[tuple[float, str]]  # ticks: where, and what they say
    up: list[tuple[float, str]] = field(default_factory=list)
    curves: list[tuple[str, str]] = field(default_factory=list)  # name and path
    bars: list[Bar] = field(default_factory=list)
    height: float = HEIGHT
    left: float = 44  # room beside it


def panels(graph: Graph, parts: BySplit) -> list[Panel]:
    """Each continuous attribute by each discrete one, or alone in a graph without any."""
    drawn = []
    for name in graph.attributes:
        if graph[name].is_discrete:
            continue
        others = [graph[other] for other in graph.attributes if graph[other].is_discrete]
        for other in others or [None]:
            drawn.append(_panel(graph[name], other, parts))
    return drawn


def _panel(number: Variable, by: Variable | None, parts: BySplit) -> Panel:
    values = parts[number.name]["all"]
    groups = {"all": values}
    if by is not None:
        labels = parts[by.name]["all"]
        groups = {label: values[labels == label] for label in by.labels}
    title = f"{number.name} by {by.name}" if by else number.name
    named = {f"{label} ({len(group):,})": group for label, group in groups.items()}
    draw = _curves if len(groups) <= CURVES else _bars
    return draw(title, number.unit, named, float(values.min()), float(values.max()))


def _curves(title: str, unit: str, groups: Mapping[str, np.ndarray], low: float, high: float) -> Panel:
    """Shares of each label's rows, so that a rare one keeps its shape."""
    edges = _round_steps(low, high, BINS)
    shares = {name: np.histogram(group, edges)[0] / max(1, len(group)) for name, group in groups.items()}
    top = max(float(share.max()) for share in shares.values())
    return Panel(
        title,
        unit,
        across=_ticks(edges[0], edges[-1], WIDTH, ACROSS),
        up=[(HEIGHT - place, text) for place, text in _ticks(0, 100 * top, HEIGHT, UP)],
        curves=[(name, _steps(share / top)) for name, share in shares.items()],
    )


def _steps(heights: np.ndarray) -> str:
    """An SVG path over bins of equal width, down to the axis on both sides."""
    width = WIDTH / len(heights)
    path = "".join(f"V{HEIGHT * (1 - h):.1f}H{(i + 1) * width:.1f}" for i, h in enumerate(heights))
    return f"M0 {HEIGHT}{path}V{HEIGHT}"


def _bars(title: str, unit: str, groups: Mapping[str, np.ndarray], low: float, high: float) -> Panel:
    edges = _round_steps(low, high, BINS)
    scale = WIDTH / (edges[-1] - edges[0])
    bars = []
    for i, (name, group) in enumerate(groups.items()):
        places = (np.quantile(group, SPREAD) - edges[0]) * scale if len(group) else []
        bars.append(Bar((i + 0.5) * ROW, name, tuple(round(float(place), 1) for place in places)))
    across, left = _ticks(edges[0], edges[-1], WIDTH, ACROSS), 10 + LETTER * max(map(len, groups))
    return Panel(title, unit, across, bars=bars, height=ROW * len(groups), left=left)


def _round_steps(low: float, high: float, most: int) -> list[float]:
    """Edges 1, 2 or 5 times a power of ten apart that cover low to high, so whole numbers share bins evenly."""
    step = (high - low) / most or 1.0
    power = 10.0 ** math.floor(math.log10(step))
    width = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
    return [width * i for i in range(math.floor(low / width), math.floor(high / width) + 2)]


def _ticks(low: float, high: float, length: float, most: int) -> list[tuple[float, str]]:
    """Round numbers within low to high, and where they stand on an axis of this length."""
    numbers = [number for number in _round_steps(low, high, most) if low <= number <= high]
    return [(round((number - low) / (high - low) * length, 1), f"{number:g}") for number in numbers]
