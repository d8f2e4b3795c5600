"""Pictures of fine-tuning: the amplification matrix as a heat map, several runs side by side, and reliability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from causalcxr.graph import Graph
from causalcxr.metrics.entries import Metrics
from causalcxr.predictors.calibration import Reliability

__all__ = ["contrast_figure", "matrix_values", "reliability_figure"]

PANEL = 2.35  # inches
COLOURS = "RdBu_r"
SMALLEST_SCALE = 1.0  # points: what is fainter than that should look faint
STATED, DIAGONAL = "#d9822b", "#9aa6b3"


def matrix_values(metrics: Metrics) -> tuple[list[str], list[str], np.ndarray]:
    """Intervened attributes, all attributes, and points `(k, a)`: amplification, overshoot where both are one."""
    rows = [key[1] for key in metrics if key[0] == "overshoot"]
    columns = list(dict.fromkeys([*rows, *(key[2] for key in metrics if key[0] == "amplification")]))
    values = [
        [metrics["overshoot", k] if k == a else metrics["amplification", k, a] for a in columns] for k in rows
    ]
    return rows, columns, np.array([[entry["value"] for entry in row] for row in values], dtype=float)


def contrast_figure(runs: Mapping[str, Metrics]) -> Figure | None:
    """One heat map per run on one scale: rows are interventions, columns what the evaluator sees change.

    Off the diagonal stands amplification, on it (framed) overshoot, in AUROC points; white is right. None if no
    run was scored.
    """
    scored = {title: metrics for title, metrics in runs.items() if ("off_target",) in metrics}
    if not scored:
        return None
    matrices = {title: matrix_values(metrics) for title, metrics in scored.items()}
    largest = np.nanmax([np.nanmax(np.abs(values)) for _, _, values in matrices.values()])
    limit = max(SMALLEST_SCALE, float(np.ceil(largest)))
    count = len(matrices)
    figure = Figure(figsize=(PANEL * count + 1.1, PANEL + 0.75), facecolor="white", layout="constrained")
    panels = np.ravel(figure.subplots(1, count, squeeze=False))
    for axes, (title, (rows, columns, values)) in zip(panels, matrices.items(), strict=True):
        _heat_map(axes, rows, columns, values, limit)
        entry = scored[title]["off_target",]
        interval = f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"
        axes.set_title(f"{title}\noff-target {interval}", fontsize=9, parse_math=False)
        if axes is not panels[0]:
            axes.set_yticklabels([])
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), ax=list(panels), shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("AUROC points too low / too high", fontsize=7)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def reliability_figure(graph: Graph, diagrams: Mapping[tuple[str, str], Reliability]) -> Figure | None:
    """Observed against stated confidence, one panel per discrete attribute and one row per classifier."""
    if not diagrams:
        return None
    whos = list(dict.fromkeys(who for who, _ in diagrams))
    names = list(dict.fromkeys(name for _, name in diagrams))
    size = (1.9 * len(names) + 0.4, 1.8 * len(whos) + 0.4)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(len(whos), len(names), squeeze=False)
    for row, who in zip(grid, whos, strict=True):
        for axes, name in zip(row, names, strict=True):
            _reliability(axes, diagrams[who, name], 1 / len(graph[name].labels))
            axes.set_title(f"{who}: {name}", fontsize=8, parse_math=False)
    for axes in grid[-1]:
        axes.set_xlabel("stated confidence", fontsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel("share right", fontsize=7)
    return figure


def _heat_map(axes: Axes, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, limit: float) -> None:
    axes.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="equal")
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), [f"do({name})" for name in rows], fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            dark = abs(values[i, j]) > 0.6 * limit
            text = f"{values[i, j]:+.1f}".replace("-", "−")
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "#1d2733")
            if row == column:
                frame: dict[str, Any] = {"fill": False, "edgecolor": "#444444", "linewidth": 1.2}
                axes.add_patch(_rectangle(j, i, frame))


def _rectangle(j: int, i: int, style: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, **style)


def _reliability(axes: Axes, diagram: Reliability, lowest: float) -> None:
    kept = diagram.rows > 0
    axes.plot([lowest, 1], [lowest, 1], color=DIAGONAL, linewidth=1, linestyle="--")
    sizes = 6 + 60 * (diagram.rows[kept] / diagram.rows.sum()).numpy()
    axes.scatter(diagram.confidence[kept], diagram.accuracy[kept], s=sizes, color=STATED, zorder=3, clip_on=False)
    axes.plot(diagram.confidence[kept], diagram.accuracy[kept], color=STATED, linewidth=1)
    axes.set_xlim(lowest - 0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.tick_params(labelsize=6.5)
    axes.spines[["top", "right"]].set_visible(False)
