"""Writes a study of erasers down: report.html, and debias.json with all numbers."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from causalcxr.debias.opportunity import FEW
from causalcxr.debias.pictures import NEAR_FLOOR, NEAR_RAW, leak_and_utility, poison_curves
from causalcxr.debias.protocol import DEFINITIONS, RAW
from causalcxr.debias.study import CONTROL, Study
from causalcxr.report.figures import save_png
from causalcxr.support.files import write_atomically, write_json
from causalcxr.support.html import interval_text, page_template

__all__ = ["as_json", "conclusions", "write_report"]


def write_report(study: Study, folder: Path) -> Path:
    """Write everything into the study's folder; returns the report's path."""
    drawn = {"leak": leak_and_utility(study.measured, study.floors)}
    for curve in study.measured[RAW].poisoned:
        drawn[f"poisoned, {curve.label} by {curve.group}"] = poison_curves(
            study.measured, curve.label, curve.group
        )
    paths = {}
    for i, (name, figure) in enumerate(drawn.items()):
        paths[name] = folder / "figures" / f"{i + 1}.png"
        save_png(figure, paths[name])
    write_json(folder / "debias.json", as_json(study))
    rows, parts = study.subject.rows, study.subject.parts
    page = page_template("causalcxr.debias", "report.html.j2").render(
        **as_json(study),
        raw=RAW,
        figures=paths,
        conclusions=conclusions(study),
        count={
            "embeddings": len(rows.z),
            "features": rows.z.shape[1],
            **{part: len(of) for part, of in parts.items()},
        },
        few=FEW,
        near=(NEAR_FLOOR, NEAR_RAW),
        race="race" in rows.erase,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def as_json(study: Study) -> dict[str, Any]:
    """All numbers, under names that say what they are."""
    return {
        "definitions": DEFINITIONS,
        "rows": {part: len(of) for part, of in study.subject.parts.items()},
        "left_out": study.subject.rows.lost,
        "floor": {name: asdict(of) for name, of in study.floors.items()},
        "erasers": {name: asdict(found) for name, found in study.measured.items()},
        "accuracy_at_budget": study.at_budget,
        "refused": study.refused,
    }


def conclusions(study: Study) -> list[str]:
    """What a reader should take along, the most important first."""
    names = [name for name in study.measured if name not in (RAW, CONTROL)]
    found = []
    for attribute, floor in study.floors.items():
        before = study.measured[RAW].strongest(attribute)[1]
        if not names:
            continue
        best = min(names, key=lambda name: study.measured[name].strongest(attribute)[1].value)
        probe, after = study.measured[best].strongest(attribute)
        found.append(
            f"{attribute}: the strongest probe has an AUROC of {interval_text(asdict(before), 3)} on raw "
            f"embeddings, and after {best}, which leaves least, {interval_text(asdict(after), 3)} ({probe}); the "
            f"floor is {floor.value:.3f}."
        )
    for label in study.measured[RAW].utility:
        raw = study.measured[RAW].utility[label]["linear"]
        after = {name: study.measured[name].utility[label]["linear"].value for name in names}
        kept = [name for name in names if after[name] >= raw.value - NEAR_RAW]
        found.append(
            f"{label}: AUROC {interval_text(asdict(raw), 3)} raw; kept within {NEAR_RAW} by "
            f"{', '.join(kept) or 'none'}."
        )
    for name, reason in study.refused.items():
        found.append(f"{name} was refused: {reason}.")
    return found
