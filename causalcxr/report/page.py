"""The report: one HTML file with everything in it; no script, no link to anything outside."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from causalcxr.graph import Graph
from causalcxr.metrics.images import Key
from causalcxr.metrics.summary import Entry, Metrics

__all__ = ["Report", "figure_source", "interval_text", "number_text", "page_template", "png_source", "render"]

NARROWEST = 1e-4  # an interval that is narrower is shown by its value alone
ROUNDING = 1e-9  # below this a number is a zero with the rounding of float64


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
    return page_template("report.html.j2").render(
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


def page_template(name: str) -> Template:
    """A template of this folder, with our filters; what is filled in is escaped."""
    environment = Environment(
        loader=PackageLoader("causalcxr.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "source": figure_source,
        "number": number_text,
        "interval": interval_text,
        "parts": interval_parts,
    }
    return environment.get_template(name)


def figure_source(path: Path) -> str:
    """A PNG file as a data URI."""
    return png_source(Path(path).read_bytes())


def png_source(content: bytes) -> str:
    """The content of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def number_text(value: Any, digits: int = 3) -> str:
    """A number with about three digits; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < 10.0**-digits:
        return f"< {10.0**-digits:g}" if abs(value) > ROUNDING else "0"
    text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def interval_text(entry: Entry | None) -> str:
    """`0.52 [0.50, 0.55]`; the value alone where the interval has no width."""
    if entry is None:
        return "–"
    value, low, high = interval_parts(entry)
    return value if low == high else f"{value} [{low}, {high}]"


def interval_parts(entry: Entry) -> tuple[str, str, str]:
    """Value and both ends with as many decimals as the interval's width gives a meaning to."""
    value, low, high = (entry[key] for key in ("value", "low", "high"))
    if not high - low > NARROWEST:  # NaN included
        return number_text(value), number_text(low), number_text(high)
    decimals = max(0, math.ceil(-math.log10((high - low) / 2)))
    value, low, high = (_fixed(x, decimals) for x in (value, low, high))
    return value, low, high


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else "−")


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
