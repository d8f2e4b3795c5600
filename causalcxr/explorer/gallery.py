"""The static gallery: the same page with its answers in it, for where nobody can run a server."""

from pathlib import Path
from typing import Any

import torch

from causalcxr.explorer.controls import controls
from causalcxr.explorer.explorer import Explorer
from causalcxr.explorer.page import gallery_page
from causalcxr.explorer.question import Question
from causalcxr.report.gallery import choose_rows
from causalcxr.support.files import write_atomically
from causalcxr.support.progress import progress_bar

__all__ = ["STOPS", "gallery_stops", "write_gallery"]

STOPS = 9  # of a number's slider, over what is usual in the training data


def write_gallery(explorer: Explorer, path: Path, patients: int) -> None:
    """Write one self-contained file with every stop of every attribute, one attribute at a time.

    `patients`: how many, chosen to show different labels.
    """
    rows = choose_rows(explorer.graph, explorer.patients.split.attributes, min(patients, len(explorer.patients)))
    stops, answers = gallery_stops(explorer), {}
    per_patient = 1 + sum(map(len, stops.values()))
    with progress_bar("gallery", len(rows) * per_patient) as advance:
        for number, row in enumerate(rows):
            answers[f"{number}"] = _numbered(explorer.answer(Question(row)), number)
            advance("")
            for name, values in stops.items():
                for stop, value in enumerate(values):
                    answers[f"{number}|{name}|{stop}"] = _numbered(
                        explorer.answer(Question(row, {name: value})), number
                    )
                    advance("")
    write_atomically(path, gallery_page(explorer, rows, stops, answers))


def gallery_stops(explorer: Explorer) -> dict[str, list[Any]]:
    """The values of every attribute: its labels, or numbers evenly over what is usual."""
    train = explorer.patients.cohort.split("train").attributes
    found: dict[str, list[Any]] = {}
    for one in controls(explorer.graph, train):
        low, high = one.get("usual", (0.0, 0.0))
        found[one["name"]] = one["labels"] if "labels" in one else _evenly(low, high, one["step"])
    return found


def _evenly(low: float, high: float, step: float) -> list[float]:
    places = torch.linspace(low, high, STOPS, dtype=torch.float64)
    return list(dict.fromkeys(round(round(float(place) / step) * step, 10) for place in places))


def _numbered(answer: dict[str, Any], number: int) -> dict[str, Any]:
    """The answer as it goes into a file: neither the row in the cohort nor the patient's id is in it."""
    question = {key: value for key, value in answer["question"].items() if key != "row"}
    kept = {key: value for key, value in answer.items() if key not in ("python", "patient")}
    return kept | {"question": question, "patient": {"patient": str(number + 1)}}
