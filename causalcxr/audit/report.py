"""Writes what an audit has found: report.html, audit.json, and scores.csv for other tools."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from causalcxr.audit.audit import Audit
from causalcxr.audit.conclusion import Found, positive_rows
from causalcxr.audit.effects import EFFECTS
from causalcxr.audit.gates import LIMITS
from causalcxr.audit.pictures import forest, patient_figures, shifts
from causalcxr.audit.words import gate_hint, sentence, verdict_sentence
from causalcxr.graph import Graph
from causalcxr.metrics.intervals import Interval
from causalcxr.report.figures import save_png
from causalcxr.support.files import write_atomically, write_json
from causalcxr.support.html import page_template
from causalcxr.values import decode

__all__ = ["as_json", "score_table", "write_report"]


def write_report(audit: Audit, folder: Path, title: str, about: Mapping[str, Any]) -> Path:
    """Write audit.json, scores.csv, figures and report.html into a folder; returns the report's path.

    `about`: what is said of model and data beside the settings.
    """
    for old in (folder / "figures").glob("*.png"):
        old.unlink()  # of an earlier audit
    figures = {name: figure for name, figure in (("forest", forest(audit)), ("shifts", shifts(audit))) if figure}
    paths = {name: folder / "figures" / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        save_png(figure, paths[name])
    pictures = []
    for i, (heading, figure) in enumerate(patient_figures(audit)):
        pictures.append((heading, folder / "figures" / f"patient_{i + 1}.png"))
        save_png(figure, pictures[-1][1])
    write_json(folder / "audit.json", as_json(audit, about))
    write_atomically(folder / "scores.csv", score_table(audit).to_csv(index=False))
    page = page_template("causalcxr.audit", "report.html.j2").render(
        title=title,
        **_shown(audit),
        figures=paths,
        pictures=pictures,
        settings={**about, **{k: v for k, v in vars(audit.config).items() if v != []}},
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def as_json(audit: Audit, about: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, under names that say what they are."""
    graph = audit.material.graph
    return {
        **about,
        "rows": len(audit.material.ids),
        "patients": len(np.unique(audit.material.patients)),
        "settings": vars(audit.config),
        "definitions": EFFECTS,
        "scale": "log-odds" if audit.log_odds else "as given",
        "found": [_found_json(found, graph, audit) for found in audit.found],
    }


def score_table(audit: Audit) -> pd.DataFrame:
    """A row for each image and score: `y_true`, `y_score`, `y_pred` (above the threshold), group columns.

    `y_score` is a probability where probabilities were audited. `y_score_NAME=VALUE`: of the counterfactual.
    Several scores stand below one another, told apart by `score`.
    """
    material, graph = audit.material, audit.material.graph
    blocks = []
    for name, score in audit.scores.items():
        positive = positive_rows(material, name, audit.config.finding)
        threshold = next(one.threshold for one in audit.found if one.score == name)
        table: dict[str, Any] = {"row": material.ids, "patient_id": material.patients, "score": name}
        table["y_true"] = "" if positive is None else positive.astype(int)
        table["y_score"] = _as_given(audit, score.real)
        table["y_pred"] = (score.real > threshold).astype(int)
        table |= {k: _decoded(graph, k, of) for k, of in material.attributes.items()}
        if score.made is not None:
            for i, (attribute, value) in enumerate(material.levels):
                table[f"y_score_{attribute}={_bare(value)}"] = _as_given(audit, score.made[:, i])
        blocks.append(pd.DataFrame(table))
    return pd.concat(blocks)


def _as_given(audit: Audit, values: Any) -> Any:
    """Scores as probabilities, if they are such."""
    return 1 / (1 + np.exp(-np.asarray(values))) if audit.log_odds else values


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _decoded(graph: Graph, name: str, values: np.ndarray) -> list[Any]:
    return decode(graph[name], torch.from_numpy(np.ascontiguousarray(values)))


def _found_json(found: Found, graph: Graph, audit: Audit) -> dict[str, Any]:
    effect, dependence = found.effect, found.dependence
    return {
        "score": found.score,
        "attribute": found.contrast.attribute,
        "reference": found.contrast.reference,
        "other": found.contrast.other,
        "verdict": found.verdict.word,
        "reason": found.verdict.reason,
        "sentence": sentence(found, graph),
        "adjusted_p": dict(found.verdict.adjusted),
        "margin": found.margin,
        "threshold": float(_as_given(audit, found.threshold)),
        "generate": None
        if effect is None
        else {
            "p": effect.p,
            "within_90": list(effect.within),
            "contradicted": effect.contradicted,
            "statistics": {name: vars(v) for name, v in effect.statistics.items()},
            "shift_by_finding": {name: vars(v) for name, v in effect.subgroups.items()},
        },
        "encode": None if dependence is None else vars(dependence),
        "gates": {
            g.name: {"value": g.value, "interval": g.interval, "limit": LIMITS[g.name], "passed": g.passed}
            for g in found.gates
        },
        "group_gaps": {name: vars(v) for name, v in found.gaps.items()},
    }


def _shown(audit: Audit) -> dict[str, Any]:
    """What the page shows of the findings."""
    material, graph = audit.material, audit.material.graph
    found = [
        {
            "score": one.score,
            "contrast": one.contrast.text(graph),
            "verdict": one.verdict,
            "sentence": sentence(one, graph),
            "follows": verdict_sentence(one),
            "margin": one.margin,
            "threshold": float(_as_given(audit, one.threshold)),
            "dependence": one.dependence,
            "effect": one.effect,
            "statistics": {k: vars(v) for k, v in one.effect.statistics.items()} if one.effect else {},
            "gaps": {k: _in_points(v) for k, v in one.gaps.items()},
            "groups": one.contrast.text(graph)
            if graph[one.contrast.attribute].is_discrete
            else f"{one.contrast.attribute}: above its median or not",
        }
        for one in audit.found
    ]
    gates = {one.contrast.text(graph): {g.name: g for g in one.gates} for one in audit.found if one.gates}
    names = [name for name in LIMITS if any(name in of for of in gates.values())]
    measured = [name for name in EFFECTS if any(name in one["statistics"] for one in found)]
    return {
        "found": found,
        "attributes": list(dict.fromkeys(contrast.attribute for contrast in material.contrasts)),
        "generated": any(one.effect for one in audit.found),
        "rows": len(material.ids),
        "patients": len(np.unique(material.patients)),
        "statistics": measured,
        "definitions": {name: EFFECTS[name] for name in measured},
        "gates": gates,
        "gate_names": names,
        "hints": {name: gate_hint(name) for name in names},
        "limits": {name: _limit(name) for name in names},
        "gaps": any(one["gaps"] for one in found),
        "by_score": {name: [one for one in found if one["score"] == name] for name in audit.scores},
        "unit": "log-odds" if audit.log_odds else "the score's own unit",
    }


def _in_points(interval: Interval) -> dict[str, Any]:
    found = vars(interval)
    return found | {name: 100 * found[name] for name in ("value", "low", "high")}


def _limit(name: str) -> str:
    lower = name in ("overlap", "effectiveness")
    return f"{'at least' if lower else 'at most'} {LIMITS[name]:g}".replace("-", "−")
