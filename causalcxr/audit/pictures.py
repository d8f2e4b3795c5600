"""Pictures of an audit: a forest plot, scores before and after, shifts beside placebos, and the patients."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalcxr.audit.audit import Audit, Moved
from causalcxr.audit.conclusion import Found
from causalcxr.metrics.intervals import Interval
from causalcxr.report.figures import Band, bands_figure, changes_band, difference_limit
from causalcxr.values import readable

__all__ = ["forest", "patient_figures", "shifts"]

ALL, SUB, BAND, PLACEBO, CHECKED = "#2c5f8a", "#8fa9c2", "#e6ebf0", "#d9822b", "#7a5195"
WORDS = {"dependence": "#b3261e", "equivalent": "#2c8250"}
_POINTS = 600  # of a scatter


def forest(audit: Audit) -> Figure | None:
    """The shift of each score and contrast: of all patients, checked, and by finding; the margin as a band."""
    graph, shown = audit.material.graph, [found for found in audit.found if found.effect is not None]
    if not shown:
        return None
    rows = [row for found in shown for row in _forest_rows(found, found.contrast.text(graph))]
    figure = Figure(figsize=(7.6, 0.27 * len(rows) + 0.8), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    margins = {found.margin for found in shown}
    if len(margins) == 1:
        axes.axvspan(-(margin := margins.pop()), margin, color=BAND, zorder=0)
    axes.axvline(0, color="#9aa6b3", linewidth=1)
    for place, (_, interval, colour) in enumerate(rows):
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1.6)
        axes.plot(interval.value, place, "o", color=colour, markersize=3.5 if colour == SUB else 5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    unit = "log-odds" if audit.log_odds else "its own unit"
    axes.set_xlabel(f"mean shift of the score ({unit}); band: the margin", fontsize=8)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def shifts(audit: Audit) -> Figure | None:
    """For each contrast of the first score: before against after, and shifts beside placebos."""
    material, graph = audit.material, audit.material.graph
    name, scores = next(iter(audit.scores.items()))
    shown = [found for found in audit.found if found.score == name and found.effect is not None]
    if not shown or scores.made is None or scores.placebo is None:
        return None
    figure = Figure(figsize=(2.5 * len(shown), 4.5), facecolor="white", layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False)
    for (above, below), found in zip(grid.T, shown, strict=True):
        i, j, side = material.sides(found.contrast)
        rows = np.arange(len(side))
        noise = scores.placebo[rows, side] - scores.made[rows, side]
        _before_after(above, scores.made[:, i], scores.made[:, j], found.threshold)
        above.set_title(found.contrast.text(graph), fontsize=8, parse_math=False)
        labels = [
            readable(graph[found.contrast.attribute], v) for v in (found.contrast.reference, found.contrast.other)
        ]
        above.set_xlabel(f"score, {labels[0]}", fontsize=7, parse_math=False)
        above.set_ylabel(f"score, {labels[1]}", fontsize=7, parse_math=False)
        _distributions(below, scores.made[:, j] - scores.made[:, i], noise)
    grid[1, 0].legend(fontsize=6.5, frameon=False)
    return figure


def patient_figures(audit: Audit) -> list[tuple[str, Figure]]:
    """The patients whose scores move most: heading, and the real image with all counterfactuals.

    Below each picture stands its score, and whether it is above the threshold.
    """
    graph, material = audit.material.graph, audit.material
    titles = ["real", *(f"{name} = {readable(graph[name], value)}" for name, value in material.levels)]
    if not audit.moved:
        return []
    limit = difference_limit([one.images for one in audit.moved])
    threshold, drawn = audit.found[0].threshold, []
    for one in audit.moved:
        captions = [[_score_text(audit, score), "flagged" if score > threshold else "not"] for score in one.scores]
        bands = [Band("images", one.images, captions), changes_band(one.images, limit)]
        drawn.append((_heading(audit, one), bands_figure(bands, titles)))
    return drawn


def _score_text(audit: Audit, score: float) -> str:
    """A probability, or the score as it is."""
    return f"{1 / (1 + math.exp(-score)):.1%}" if audit.log_odds else f"score {score:.2f}"


def _heading(audit: Audit, one: Moved) -> str:
    material = audit.material
    values = {name: readable(material.graph[name], of[one.row]) for name, of in material.attributes.items()}
    described = ", ".join(f"{name} = {value}" for name, value in values.items())
    return f"Patient {material.patients[one.row]}: {described}"


def _forest_rows(found: Found, title: str) -> list[tuple[str, Interval, str]]:
    assert found.effect is not None
    whole = found.effect.statistics["shift"]
    colour = WORDS.get(found.verdict.word, ALL)
    checked = ("checked against real patients", found.effect.statistics["checked"], CHECKED)
    below = [(name, interval, SUB) for name, interval in found.effect.subgroups.items()]
    return [(f"{found.score} · {title}", whole, colour), checked, *below]


def _before_after(axes: Axes, before: np.ndarray, after: np.ndarray, threshold: float) -> None:
    chosen: Sequence[int] = np.linspace(0, len(before) - 1, min(_POINTS, len(before))).astype(int).tolist()
    ends = [min(before.min(), after.min()), max(before.max(), after.max())]
    axes.plot(ends, ends, color="#9aa6b3", linewidth=1, linestyle="--")
    axes.axvline(threshold, color=BAND, linewidth=1)
    axes.axhline(threshold, color=BAND, linewidth=1)
    axes.scatter(before[chosen], after[chosen], s=3, color=ALL, alpha=0.5, linewidths=0)
    axes.tick_params(labelsize=6.5)
    axes.spines[["top", "right"]].set_visible(False)


def _distributions(axes: Axes, shift: np.ndarray, noise: np.ndarray) -> None:
    both = np.concatenate([shift, noise])
    low, high = np.quantile(both, [0.002, 0.998])
    room = 0.05 * (high - low) + 1e-6
    bins = np.linspace(low - room, high + room, 41).tolist()
    axes.hist(shift, bins=bins, color=ALL, alpha=0.75, label="shift")
    axes.hist(noise, bins=bins, histtype="step", color=PLACEBO, linewidth=1.2, label="placebo")
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("change of the score", fontsize=7)
    axes.set_ylabel("images (log scale)", fontsize=7)
    axes.tick_params(labelsize=6.5)
    axes.spines[["top", "right"]].set_visible(False)
