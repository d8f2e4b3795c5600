"""The figures of a study's report."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalcxr.bias.bayes import optimum
from causalcxr.bias.grid import Bias
from causalcxr.bias.planting import on_films
from causalcxr.bias.study import Study
from causalcxr.metrics.intervals import Interval, seed_interval
from causalcxr.report.figures import Band, bands_figure, changes_band, difference_limit

__all__ = ["examples", "gaps_by_q", "heat_map", "layers", "mitigation"]

COLOURS = ("#2c5f8a", "#d9822b", "#2c8250", "#7a5195", "#8c564b", "#5b6876", "#b3261e", "#17808c")
BAYES, SOFT = "#1d2733", "#9aa6b3"
SHOWN = 2  # subjects in the picture of examples


def examples(study: Study) -> Figure:
    """Two test subjects: the film without the bias, with each, and what that changes."""
    films, opened = study.opened.films, study.opened
    names = [b.name for b in _biases(study) if on_films(b.channels(opened.config))]
    test = films.rows("test")
    sick, well = test[films.finding[test]], test[~films.finding[test]]
    chosen = [*sick[: SHOWN - 1], *well[:1]]
    rows = [[films.plain[i], *(films.biased[name][i] for name in names)] for i in chosen]
    limit, bands = difference_limit(rows), []
    for i, row in zip(chosen, rows, strict=True):
        labels = opened.variable.labels
        bands += [Band(labels[int(films.finding[i])], row), changes_band(row, limit)]
    return bands_figure(bands, ["without", *names])


def heat_map(study: Study, statistic: str = "index") -> Figure:
    """The shortcut index (or the gap, where the best classifier is not known) over q and kind."""
    biases = [b for b in _biases(study) if statistic != "index" or study.opened.best_known(b)]
    qs = [q for q in study.opened.config.q if statistic != "index" or q > 0.5]
    found = {(c.bias, c.q): c.measured.statistics for c in study.cells if c.method == "none"}
    values = np.array([[found[bias, q][statistic].value for q in qs] for bias in biases])
    figure = Figure(
        figsize=(1.0 * len(qs) + 2.6, 0.42 * len(biases) + 1.0), facecolor="white", layout="constrained"
    )
    axes = figure.add_subplot()
    limit = (
        max(1.2, float(np.nanmax(np.abs(values)))) if statistic == "index" else float(np.nanmax(np.abs(values)))
    )
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        white = abs(value) > 0.6 * limit
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if white else BAYES)
    axes.set_xticks(range(len(qs)), [f"{q:g}" for q in qs], fontsize=8)
    axes.set_yticks(range(len(biases)), [b.name for b in biases], fontsize=8, parse_math=False)
    axes.set_xlabel("q: share of group B among those with the finding", fontsize=8)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.06)
    bar.set_label("shortcut index" if statistic == "index" else "gap", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if statistic == "index":
        bar.ax.axhline(1.0, color="w", linewidth=4)
        bar.ax.axhline(1.0, color=BAYES, linewidth=2)
    return figure


def gaps_by_q(study: Study) -> Figure:
    """Gap and accuracy against q by kind, the twin's, and the best classifier's."""
    qs, biases = study.opened.config.q, _biases(study)
    found = {(c.bias, c.q): c.measured.statistics for c in study.cells if c.method == "none"}
    figure = Figure(figsize=(9.2, 3.5), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, bias in enumerate(biases):
        place = np.array(qs) + 0.004 * (i - (len(biases) - 1) / 2)
        for axes, name in ((left, "gap"), (right, "accuracy")):
            _line(axes, place, [found[bias, q][name] for q in qs], COLOURS[i % len(COLOURS)], bias.name)
    twins = [found[biases[0], q] for q in qs]
    _line(left, np.array(qs), [s["twin_gap"] for s in twins], SOFT, "twin's own gap")
    _line(right, np.array(qs), [s["twin_accuracy"] for s in twins], SOFT, "twin")
    if study.opened.has_bayes:
        best = [optimum(q) for q in qs]
        left.plot(qs, [b.gap for b in best], "--", color=BAYES, linewidth=1.2, label="best classifier")
        right.plot(qs, [b.accuracy for b in best], "--", color=BAYES, linewidth=1.2, label="best classifier")
        right.axhline(best[0].blind_accuracy, color=BAYES, linewidth=0.8, linestyle=":")
        right.text(qs[-1], best[0].blind_accuracy, "best, blind to the group", fontsize=6.5, va="top", ha="right")
    left.axhline(0, color=SOFT, linewidth=0.8)
    left.set_ylabel("gap between groups, less the twin's", fontsize=8)
    right.set_ylabel("accuracy on the biased test films", fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("q", fontsize=8)
        _plain(axes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


def layers(study: Study) -> Figure | None:
    """For each probed network: what its layers hold of group and finding, and the shift left after erasing it."""
    shown = {name: found for name, found in study.layers.items() if not name.startswith("twin of ")}
    if not shown:
        return None
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.7 * columns, 4.1 * lines), facecolor="white", layout="constrained")
    grid = figure.subplots(2 * lines, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    moved = [f[key] for found in shown.values() for f in found for key in ("shift", "erased_shift")]
    low, high = min(0.0, *moved), max(0.0, *moved)
    for i, (name, found) in enumerate(shown.items()):
        above, below = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
        bias = next(b.name for b in _biases(study) if name.startswith(f"{b.name}-q"))
        _encoding(above, found, study.layers.get(f"twin of {bias}"))
        above.set_title(name, fontsize=7.5, parse_math=False)
        _use(below, found)
        below.set_ylim(1.1 * low - 0.05 * high, 1.1 * high - 0.05 * low + 1e-6)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=7, frameon=False
    )
    return figure


def mitigation(study: Study) -> Figure | None:
    """The index (or gap) and the accuracy of each method, with Student's intervals over seeds, a panel a bias."""
    config = study.opened.config
    if not config.mitigate:
        return None
    panels = [(bias, q) for bias in _biases(study) for q in config.mitigated_q]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * lines + 0.3), facecolor="white", layout="constrained")
    grid = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    found = {(c.bias, c.q, c.method): c.measured.by_seed for c in study.cells}
    for axes, (bias, q) in zip(grid, panels, strict=False):
        name = "index" if study.opened.best_known(bias) and q > 0.5 else "gap"
        for i, method in enumerate(("none", *config.mitigate)):
            seeds = found[bias, q, method]
            _cross(axes, seed_interval(seeds[name]), seed_interval(seeds["accuracy"]), COLOURS[i], method)
            axes.plot(seeds[name], seeds["accuracy"], ".", color=COLOURS[i], alpha=0.5, markersize=4)
        if study.opened.best_known(bias):
            best = optimum(q)
            axes.plot(1.0 if name == "index" else best.gap, best.accuracy, "*", color=BAYES, markersize=9)
            axes.plot(0.0, best.blind_accuracy, "*", color=SOFT, markersize=9)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.set_title(f"{bias.name}, q = {q:g}", fontsize=8, parse_math=False)
        axes.set_xlabel("shortcut index" if name == "index" else "gap", fontsize=7.5)
        axes.set_ylabel("accuracy", fontsize=7.5)
        _plain(axes)
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=7, frameon=False
    )
    return figure


def _biases(study: Study) -> list[Bias]:
    return list(dict.fromkeys(cell.bias for cell in study.cells))


def _line(axes: Axes, place: np.ndarray, found: Sequence[Interval], colour: str, label: str) -> None:
    axes.plot(place, [f.value for f in found], "o-", color=colour, linewidth=1.2, markersize=3, label=label)
    axes.vlines(place, [f.low for f in found], [f.high for f in found], color=colour, linewidth=1.0)


def _encoding(axes: Axes, found: Sequence[dict], twin: Sequence[dict] | None) -> None:
    axes.set_axis_on()
    at = range(len(found))
    axes.plot(at, [f["group"] for f in found], "o-", color=COLOURS[1], markersize=3, label="group")
    axes.plot(at, [f["finding"] for f in found], "s-", color=COLOURS[0], markersize=3, label="finding")
    if twin:
        axes.plot(at, [f["group"] for f in twin], "o:", color=SOFT, markersize=2.5, label="group, in the twin")
    axes.plot(at, [f["group_floor"] for f in found], "--", color=BAYES, linewidth=0.8, label="permuted labels")
    axes.set_ylim(0.45, 1.02)
    axes.set_ylabel("AUROC of a linear probe", fontsize=7)
    axes.set_xticks([])
    _plain(axes)


def _use(axes: Axes, found: Sequence[dict]) -> None:
    axes.set_axis_on()
    at = range(len(found))
    axes.axhline(found[0]["shift"], color=COLOURS[1], linewidth=1.0)
    axes.text(len(found) - 0.5, found[0]["shift"], "as it is", fontsize=6.5, va="bottom", ha="right")
    axes.bar(at, [f["erased_shift"] for f in found], color=COLOURS[1], alpha=0.6, width=0.6)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_xticks(at, [f["layer"] for f in found], fontsize=6, rotation=60, parse_math=False)
    axes.set_ylabel("shift by do(group),\ngroup erased there", fontsize=7)
    _plain(axes)


def _cross(axes: Axes, across: Interval, up: Interval, colour: str, label: str) -> None:
    axes.plot([across.low, across.high], [up.value, up.value], color=colour, linewidth=1.2)
    axes.plot([across.value, across.value], [up.low, up.high], color=colour, linewidth=1.2)
    axes.plot(across.value, up.value, "o", color=colour, markersize=5, label=label.replace("_", " "))


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
