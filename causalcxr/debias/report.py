"""Writes a study of erasers down: report.html, and debias.json with all numbers."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import causalcxr
from causalcxr.debias.opportunity import FEW
from causalcxr.debias.pictures import NEAR_FLOOR, NEAR_RAW, leak_and_utility, poison_curves
from causalcxr.debias.protocol import DEFINITIONS, RAW
from causalcxr.debias.study import CONTROL, Study
from causalcxr.report.figures import save_png
from causalcxr.support.files import write_atomically, write_json
from causalcxr.support.html import interval_text, page_template

__all__ = ["as_json", "conclusions", "verdict", "write_report"]

GONE, MORE = "at the floor", "more than raw"


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
        verdicts={
            name: {attribute: verdict(study, name, attribute) for attribute in study.floors}
            for name in study.measured
        },
        about=about(study, folder),
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


def verdict(study: Study, eraser: str, attribute: str) -> str:
    """Whether an attribute is gone, in two words: by the strongest probe's interval, the floor and raw."""
    found, raw = (study.measured[name].strongest(attribute)[1] for name in (eraser, RAW))
    if found.low > raw.high:
        return MORE
    return GONE if found.low <= study.floors[attribute].value + NEAR_FLOOR else "not gone"


def conclusions(study: Study) -> list[str]:
    """What a reader should take along, the most important first."""
    names = [name for name in study.measured if name not in (RAW, CONTROL)]
    found = []
    for attribute, floor in study.floors.items():
        before = study.measured[RAW].strongest(attribute)[1]
        after = {name: study.measured[name].strongest(attribute)[1] for name in names}
        gone = [name for name in names if verdict(study, name, attribute) == GONE]
        said = ", ".join(
            f"{name} ({after[name].value:.3f}, edit {study.measured[name].edit:.2g})" for name in gone
        )
        found.append(
            f"{attribute}: the strongest probe has an AUROC of {interval_text(asdict(before), 3)} on raw "
            f"embeddings; the floor is {interval_text(asdict(floor), 3)}. "
            + (f"At the floor after {said}." if gone else "No eraser takes it away.")
        )
        if worse := [name for name in names if verdict(study, name, attribute) == MORE]:
            found.append(
                f"{attribute}: probes tell more of it after {', '.join(worse)} than before. Do not use these."
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


def about(study: Study, folder: Path) -> dict[str, Any]:
    """Where the numbers come from."""
    known = json.loads((folder / "study.json").read_text("utf-8"))
    rows = study.subject.rows
    left_out = ", ".join(f"{reason}: {count}" for reason, count in rows.lost.items()) or "none"
    return {
        **{name: path for name, path in known["where"].items() if path},
        "digest": known["digest"],
        "seed": known["seed"],
        "patients": len(set(rows.patients)),
        "rows left out": left_out,
        **{f"remark {i + 1}": remark for i, remark in enumerate(rows.remarks)},
        "causalcxr": causalcxr.__version__,
    }
