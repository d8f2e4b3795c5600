"""Pictures of the simulator: a contact sheet, and a grid of exact counterfactuals with their difference maps.

Figures are drawn without a display and belong to no global state; `report.figures.save_png` writes one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from causalcxr.simulator.channels import noise
from causalcxr.simulator.equations import DEFAULT, Knobs, attributes, graph
from causalcxr.simulator.projection import counterfactual, render
from causalcxr.values import decode

__all__ = ["contact_sheet", "counterfactual_grid"]


def contact_sheet(
    seed: int = 0, ids: Sequence[int] = range(24), size: int = 160, columns: int = 6, knobs: Knobs = DEFAULT
) -> Figure:
    """Images of the subjects `ids`, each captioned with its sex, age and finding (and view, if there is one)."""
    u = noise(seed, ids)
    p = attributes(u, knobs=knobs)
    images = render(u, p, size, knobs)[:, 0].numpy()
    captions = _captions(p, knobs)
    lines = -(-len(images) // columns)
    figure = _figure(1.75 * columns, 1.95 * lines)
    for i, image in enumerate(images):
        _show(figure.add_subplot(lines, columns, i + 1), image, captions[i])
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.18 / (1.95 * lines), 0.03, 0.13)
    return figure


def counterfactual_grid(
    seed: int = 0, ids: Sequence[int] = range(4), size: int = 192, knobs: Knobs = DEFAULT
) -> Figure:
    """Exact direct effects, a subject a row: factual, other sex, age 30, age 80, other finding.

    Under each image stands its difference from the factual one; all maps share one symmetric scale.
    """
    u = noise(seed, ids)
    p = attributes(u, knobs=knobs)
    interventions = {
        "do(sex = other)": {"sex": 1 - p["sex"]},
        "do(age = 30)": {"age": 30},
        "do(age = 80)": {"age": 80},
        "do(finding = other)": {"finding": 1 - p["finding"]},
    }
    factual = render(u, p, size, knobs)
    changed = {name: counterfactual(u, do, size, "direct", knobs) for name, do in interventions.items()}
    limit = max(float((images - factual).abs().max()) for images in changed.values())
    captions, n = _captions(p, knobs), len(factual)
    figure = _figure(9.8, 3.5 * n + 0.3)
    grid = figure.add_gridspec(2 * n, 5)
    for row in range(n):
        _show(figure.add_subplot(grid[2 * row, 0]), factual[row, 0].numpy(), captions[row])
        for column, (name, images) in enumerate(changed.items(), start=1):
            _show(figure.add_subplot(grid[2 * row, column]), images[row, 0].numpy(), name)
            axes = figure.add_subplot(grid[2 * row + 1, column])
            maps = _show_difference(axes, (images - factual)[row, 0].numpy(), limit)
            if (row, column) == (0, 1):
                bar = figure.colorbar(maps, cax=figure.add_axes((0.925, 0.25, 0.014, 0.5)))
                bar.set_label("difference from the factual image (range of an image: 0 to 1)", fontsize=7.5)
                bar.ax.tick_params(labelsize=7)
    figure.subplots_adjust(0.005, 0.005, 0.915, 1 - 0.25 / (3.5 * n + 0.3), 0.03, 0.11)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, image: Any, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=7.5, pad=2)
    axes.set_axis_off()


def _show_difference(axes: Axes, difference: Any, limit: float) -> Any:
    axes.set_axis_off()
    return axes.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")


def _captions(p: Mapping[str, Tensor], knobs: Knobs) -> list[str]:
    declared = graph(knobs)
    named = {name: decode(declared[name], values) for name, values in p.items()}
    shown = []
    for i, (sex, age, finding) in enumerate(zip(named["sex"], named["age"], named["finding"], strict=True)):
        view = f", {named['view'][i]}" if "view" in named else ""
        shown.append(f"{sex}, {age:.0f}, {finding}{view}")
    return shown
