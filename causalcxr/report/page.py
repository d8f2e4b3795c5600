"""The report: one HTML file with everything in it; no script, no link to anything outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from causalcxr.graph import Graph
from causalcxr.metrics.entries import Entry, Key, Metrics
from causalcxr.support.html import page_template

__all__ = ["Report", "render"]


@dataclass(frozen=True)
class Report:
    """What the report shows. `figures` maps names (`samples`) to PNG files; a missing one is left out."""

    title: str
    graph: Graph
    facts: Mapping[str, str]
    metrics: Metrics
    figures: Mapping[str, Path]
    gallery: Sequence[tuple[str, Path]] = ()  # heading and picture of each subject
    warnings: Sequence[str] = ()
    cycles: int = 1
    settings: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    simulated: bool = False
    runs: Mapping[str, Metrics] = field(default_factory=dict)  # by how they were fine-tuned, this one first
    finetune: Mapping[str, Any] = field(default_factory=dict)


def render(report: Report) -> str:
    """The report as HTML."""
    metrics = report.metrics
    names = list(dict.fromkeys(key[1] for key in metrics if key[0] == "reversibility"))
    return page_template("causalcxr.report", "report.html.j2").render(
        report=report,
        metrics={"/".join(key): entry for key, entry in metrics.items()},
        get=metrics.get,
        names=names,
        matrices=_matrices(metrics, names),
        interventional=_interventional(metrics),
        tiles=_tiles(report, names),
        causes=[key[1] for key in metrics if key[0] == "overshoot"],
        classifiers=_classifiers(report),
        race="race" in report.graph.variables,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _matrices(metrics: Metrics, names: Sequence[str]) -> list[dict[str, Any]]:
    """Alpha of the model and of both yardsticks: rows by intervened attribute, columns by attribute."""
    titles = {
        "model": "model",
        "did_nothing": "yardstick: did nothing",
        "exact": "yardstick: the exact one itself",
    }
    found = []
    for who, title in titles.items():
        cells = {
            name: [_alpha_cell(metrics, ("exact", who, name, "alpha", other), name == other) for other in names]
            for name in names
        }
        if any(cell["entry"] for row in cells.values() for cell in row):
            found.append({"title": title, "rows": cells})
    return found


def _alpha_cell(metrics: Metrics, key: Key, own: bool) -> dict[str, Any]:
    entry = metrics.get(key)
    value = entry["value"] if entry else None
    wrong = 0.0 if value is None or value != value else min(1.0, abs(value - (1.0 if own else 0.0)))
    return {"entry": entry, "own": own, "wrong": round(wrong, 2)}


def _interventional(metrics: Metrics) -> list[dict[str, Any]]:
    found: dict[Key, dict[str, Any]] = {}
    for key, entry in metrics.items():
        if key[0] == "interventional":
            row = found.setdefault(key[1:4], {"do": key[1], "name": key[2], "statistic": key[3], "exact": None})
            row[key[4]] = entry
    return list(found.values())


def _classifiers(report: Report) -> list[dict[str, Any]]:
    """One line for every classifier and attribute: how good it is, and its calibration error."""
    found = []
    for who, name in dict.fromkeys((key[1], key[2]) for key in report.metrics if key[0] == "classifier"):
        get = report.metrics.get
        found.append(
            {"who": who, "name": name, "unit": report.graph[name].unit}
            | {what: get(("classifier", who, name, what)) for what in ("auroc", "error")}
            | {when: get(("calibration", who, name, when)) for when in ("before", "after")}
        )
    return found


def _tiles(report: Report, names: Sequence[str]) -> list[tuple[str, Entry, str]]:
    """The few numbers to see first: what it is, the entry, and what would be right."""
    metrics, tiles = report.metrics, []
    wanted: list[tuple[str, Key, str]] = [
        ("Bits per dimension", ("image", "bits_per_dimension"), "lower is better; 8 is guessing"),
        ("Null intervention, without pixel noise", ("composition", "off", "1"), "grey levels; 0 is right"),
    ]
    for name in names:
        # Of the expected counterfactual where it is measured: a draw can but guess what an image leaves open.
        expected = ("exact", "expected", name, "error") in metrics
        who, whose = ("expected", ", expected") if expected else ("model", "")
        title, key = f"Exact error of do({name}){whose}", ("exact", who, name, "error")
        wanted.append((title, key, "0 exact, 1 as doing nothing"))
    wanted.append(("Mean off-target change", ("off_target",), "AUROC points; 0 is right"))
    if report.graph.image is None:
        wanted += [
            (f"Log-likelihood of {name}", ("attributes", name, "log_likelihood"), "nats; higher is better")
            for name in report.graph.attributes
        ]
    for title, key, hint in wanted:
        entry = metrics.get(key)
        if entry is not None and entry["value"] == entry["value"]:
            tiles.append((title, entry, hint))
    return tiles
