"""The figures of a report on erasers."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalcxr.debias.protocol import RAW, Measured
from causalcxr.metrics.intervals import Interval

__all__ = ["leak_and_utility", "poison_curves"]

COLOURS = {
    RAW: "#1d2733",
    "leace": "#2c5f8a",
    "splince": "#5b9bd5",
    "transport": "#8c564b",
    "residual": "#6a51a3",
    "counterfactual": "#2c8250",
    "distilled": "#7fb069",
    "span": "#a08a2c",
    "independence": "#d9822b",
    "published": "#c2457a",
    "noise": "#9aa6b3",
}
MARKERS = "osD^vP*X<>"
NEAR_FLOOR, NEAR_RAW = 0.03, 0.005  # the corner that is wanted


def leak_and_utility(measured: Mapping[str, Measured], floors: Mapping[str, Interval]) -> Figure:
    """One panel an attribute: what the strongest probe tells to the right, what is kept upwards.

    The corner that is wanted is shaded: within 0.03 of the floor, and within 0.005 of raw utility. Thin lines
    reach from the weakest probe to the strongest; a dot is as large as the edit.
    """
    names = list(floors)
    drawn = Figure(figsize=(3.6 * len(names) + 1.6, 3.7), facecolor="white", layout="constrained")
    for i, name in enumerate(names):
        axes = drawn.add_subplot(1, len(names), i + 1)
        _corner(axes, measured, floors[name].value)
        for j, (eraser, found) in enumerate(measured.items()):
            colour, marker = _look(eraser, j)
            values, height = [of.value for of in found.leak[name].values()], _utility(found)
            axes.plot([min(values), max(values)], [height, height], color=colour, linewidth=1, alpha=0.6)
            size = 30 + 90 * min(1.0, found.edit)
            axes.scatter(
                [max(values)], [height], size, colour, marker=marker, label=eraser, zorder=3, edgecolor="white"
            )
        axes.axvline(floors[name].value, color="#1d2733", linewidth=0.8, linestyle=":")
        axes.set_title(name.replace("$", r"\$"), fontsize=9)
        axes.set_xlabel("leak: AUROC of probes, the strongest as a dot", fontsize=8)
        axes.set_xlim(0.45, 1.02)
        _finish(axes)
        if i == 0:
            axes.set_ylabel(_height_of(measured), fontsize=8)
    drawn.legend(*axes.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside right center")
    return drawn


def poison_curves(measured: Mapping[str, Measured], label: str, group: str) -> Figure:
    """Sensitivity that the poisoned group loses beyond others, by the share of its positives called negative."""
    drawn = Figure(figsize=(5.6, 3.2), facecolor="white", layout="constrained")
    axes = drawn.add_subplot()
    for j, (eraser, found) in enumerate(measured.items()):
        for curve in found.poisoned:
            if (curve.label, curve.group) == (label, group):
                colour, marker = _look(eraser, j)
                axes.plot(
                    list(curve.lost),
                    list(curve.lost.values()),
                    color=colour,
                    label=eraser,
                    marker=marker,
                    markersize=3,
                )
    axes.axhline(0, color="#1d2733", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of the group's positives that are called negative", fontsize=8)
    axes.set_ylabel("sensitivity lost beyond others", fontsize=8)
    _finish(axes)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def _look(eraser: str, place: int) -> tuple[str, str]:
    """Colour, the same in every report (of a chain that of its last), and marker."""
    return COLOURS.get(eraser.split("+")[-1], "#7a5195"), MARKERS[place % len(MARKERS)]


def _corner(axes: Axes, measured: Mapping[str, Measured], floor: float) -> None:
    heights = [_utility(found) for found in measured.values()]
    raw = _utility(measured[RAW]) if RAW in measured else max(heights)
    low, high = min(heights), max([*heights, raw])
    room = max(0.05, 0.08 * (high - low))
    axes.set_ylim(low - room, high + room)
    axes.fill_between(
        [0.45, floor + NEAR_FLOOR], raw - NEAR_RAW, high + room, color="#2c8250", alpha=0.15, linewidth=0
    )


def _utility(found: Measured) -> float:
    """The mean over labels to keep; without any, the share of the variance that is not edited."""
    if not found.utility:
        return 1 - found.edit
    return float(np.mean([of["linear"].value for of in found.utility.values()]))


def _height_of(measured: Mapping[str, Measured]) -> str:
    names: Sequence[str] = list(next(iter(measured.values())).utility)
    return f"utility: AUROC of {', '.join(names)}".replace("$", r"\$") if names else "variance that is not edited"


def _finish(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="#dde2e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
