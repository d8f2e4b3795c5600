"""The figures of the report of a study across hospitals."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from causalcxr.federation.scores import unit_of
from causalcxr.federation.study import Study

__all__ = ["COLOURS", "by_site", "curves", "strategies"]

COLOURS = {
    "central": "#1d2733",
    "local": "#9aa6b3",
    "fedavg": "#d9822b",
    "fedprox": "#8c564b",
    "travelling": "#2c5f8a",
    "fedtm": "#2c8250",
}


def curves(study: Study, part: str) -> Figure:
    """Mean validation loss by round (of travelling by cycle), one line a strategy: the mean over its models."""
    figure = _figure(6.4, 3.4)
    axes = figure.add_subplot()
    for strategy in study.measured:
        found = [trained.histories[part].curve for trained in study.of(strategy)]
        rounds = [point["round"] for point in found[0]]
        losses = np.mean([[sum(point["losses"].values()) for point in curve] for curve in found], axis=0)
        axes.plot(rounds, losses, color=COLOURS[strategy], label=strategy, marker="o", markersize=3, linewidth=1.4)
    axes.set_xlabel("round, or cycle of one travelling model", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("validation loss", fontsize=8)
    _finish(axes)
    return figure


def strategies(study: Study) -> Figure:
    """How good each strategy is for each attribute, with its interval."""
    names = study.opened.predicted
    figure = _figure(2.6 * len(names) + 1.2, 0.34 * len(study.measured) + 1.1)
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        for row, (strategy, found) in enumerate(study.measured.items()):
            interval = found[name].overall
            axes.plot([interval.low, interval.high], [row, row], color=COLOURS[strategy], linewidth=2)
            axes.plot(interval.value, row, "o", color=COLOURS[strategy], markersize=6)
        shown = list(study.measured) if i == 0 else [""] * len(study.measured)
        axes.set_yticks(range(len(study.measured)), shown, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(_named(study, name), fontsize=8)
        _finish(axes, legend=False)
    return figure


def by_site(study: Study, name: str) -> Figure:
    """How good each strategy is at each site with enough test films, by the site's training films."""
    sizes = {site.name: len(site.train) for site in study.opened.sites}
    figure = _figure(6.4, 3.4)
    axes = figure.add_subplot()
    for strategy, found in study.measured.items():
        values = found[name].by_group["site"]
        places = sorted(values, key=lambda place: sizes[place])
        axes.plot(
            [sizes[place] for place in places],
            [values[place] for place in places],
            "o",
            color=COLOURS[strategy],
            label=strategy,
            markersize=4,
            alpha=0.8,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(_round_numbers(sizes.values()))
    axes.set_xlabel("training films of the site", fontsize=8)
    axes.set_ylabel(_named(study, name), fontsize=8)
    _finish(axes)
    return figure


def _round_numbers(sizes: Iterable[int]) -> list[int]:
    """1, 2, 5, 10, 20, ... as far as the sites' sizes go."""
    known = sorted(sizes)
    low, high = known[0], known[-1]
    steps = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
    return [step for step in steps if low <= step <= high] or [low]


def _named(study: Study, name: str) -> str:
    variable = study.opened.graph[name]
    return f"{name}: {unit_of(variable)}" + (f" ({variable.unit})" if variable.unit else "")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _finish(axes: Axes, legend: bool = True) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="#dde2e8", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
