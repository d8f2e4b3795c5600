"""The page as one self-contained file: live, where a server answers it, or a gallery with its answers in it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from causalcxr.explorer.controls import controls, drawing
from causalcxr.explorer.explorer import Explorer
from causalcxr.explorer.question import MOST_DRAWS
from causalcxr.scm import EFFECTS
from causalcxr.support.html import page_template

__all__ = ["LIMIT", "SECURITY", "gallery_page", "live_page"]

LIMIT = 50  # grey levels: the ends of the one scale of all differences
SCRIPTS = (  # of the page, in this order
    "state",
    "values",
    "controls",
    "graph",
    "patients",
    "asking",
    "pictures",
    "compare",
    "tables",
    "keep",
    "begin",
)
POLICY = {
    "default-src": "'none'",
    "script-src": "'unsafe-inline'",
    "style-src": "'unsafe-inline'",
    "img-src": "data: blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
SECURITY = {
    "Content-Security-Policy": "; ".join(f"{key} {value}" for key, value in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def live_page(explorer: Explorer) -> str:
    """The page that asks the server it came from."""
    described = _described(explorer) | {"mode": "live", "patients": explorer.patients.table()}
    return _render(explorer, described)


def gallery_page(
    explorer: Explorer, rows: Sequence[int], stops: Mapping[str, Sequence[Any]], answers: Mapping[str, Any]
) -> str:
    """The page with its answers. `stops`: the values of every attribute; `answers`: by `row|attribute|stop`.

    Patients are numbered from 1: neither their ids nor the others of the split are in the file.
    """
    values = explorer.patients.table()["values"]
    shown: dict[str, Any] = {"values": {name: [column[row] for row in rows] for name, column in values.items()}}
    shown |= {"id": list(range(1, len(rows) + 1)), "patient": [str(i + 1) for i in range(len(rows))]}
    described = _described(explorer) | {"mode": "gallery", "patients": shown}
    return _render(explorer, described | {"stops": stops, "answers": answers})


def _described(explorer: Explorer) -> dict[str, Any]:
    train = explorer.patients.cohort.split("train").attributes
    return {
        "controls": controls(explorer.graph, train),
        "drawing": drawing(explorer.graph),
        "effects": EFFECTS,
        "modes": explorer.modes,
        "most_draws": MOST_DRAWS,
        "limit": LIMIT,
        "exact": explorer.simulated is not None,
        "split": explorer.patients.split.name,
        "runs": [run.name for run in explorer.runs],
        "shape": explorer.shape,
        "image": explorer.graph.image,
    }


def _render(explorer: Explorer, described: Mapping[str, Any]) -> str:
    data = json.dumps(described, separators=(",", ":")).replace("<", "\\u003c")  # no end of the script in a label
    policy = "; ".join(f"{key} {value}" for key, value in POLICY.items() if key != "frame-ancestors")  # a header's
    title = ", ".join(run.name for run in explorer.runs)
    has_race = "race" in explorer.graph.attributes
    template = page_template("causalcxr.explorer", "web/page.html.j2")
    return template.render(scripts=SCRIPTS, data=data, policy=policy, title=title, has_race=has_race, **described)
