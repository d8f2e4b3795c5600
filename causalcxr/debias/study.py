"""A folder of fitted erasers: what they were fitted to, how the rows were parted, and what is measured of
them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.debias.coding import Coding
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.parts import parts_given, split_patients
from causalcxr.debias.protocol import RAW, Measured, Subject, accuracy_at_budget, floors, measure
from causalcxr.debias.registry import load_eraser, make_eraser, save_eraser
from causalcxr.debias.tables import Embedded, Wanted, join, read_embeddings, read_table
from causalcxr.metrics.intervals import Interval
from causalcxr.support.errors import ConfigError, RunError
from causalcxr.support.files import write_atomically, write_json

__all__ = ["CONTROL", "Study", "Where", "apply", "count_of", "fit", "open_study", "study_of"]

BUDGET = "leace"  # whose edit is the budget
CONTROL = "noise"  # is always measured


@dataclass(frozen=True)
class Where:
    """The files of a study: embeddings, their table, and pairs where there are any."""

    embeddings: str
    table: str
    pairs: str = ""


@dataclass(frozen=True)
class Study:
    """Everything that is measured: by eraser, the floor by attribute, and what was refused with the reason.

    `at_budget`: accuracy of RBF probes by eraser and attribute, each as near to the raw embeddings as leace.
    """

    subject: Subject
    measured: dict[str, Measured]
    floors: dict[str, Interval]
    at_budget: dict[str, dict[str, float]]
    refused: dict[str, str]


def fit(
    where: Where, wanted: Wanted, names: Sequence[str], out: Path, seed: int = 0
) -> tuple[Subject, dict[str, str]]:
    """Fit erasers to the part `fit` and write them into `out`; also gives what was refused, and why.

    Raises ConfigError: `out` holds another study, or no such eraser. Raises DataError: files that do not fit.
    """
    erasers = {name: make_eraser(name) for name in names}
    subject = _subject(where, wanted, seed)
    Coding.fit({**subject.rows.erase, **subject.rows.keep})  # raises before anything is written
    settings = {"where": asdict(where), "wanted": asdict(wanted), "seed": seed}
    _claim(out, settings)
    refused = {}
    for name, eraser in erasers.items():
        try:
            save_eraser(subject.fit(eraser), out / "erasers" / f"{name}.safetensors")
        except EmbeddingsError as error:
            refused[name] = str(error)
    named = np.empty(len(subject.rows.z), dtype=object)
    for part, rows in subject.parts.items():
        named[rows] = part
    table = pd.DataFrame({"id": subject.rows.ids, "patient_id": subject.rows.patients, "part": named})
    write_atomically(out / "parts.csv", table.to_csv(index=False))
    write_json(out / "study.json", settings | {"refused": refused, "lost": subject.rows.lost})
    return subject, refused


def open_study(folder: Path) -> tuple[Subject, dict[str, Path], dict[str, str]]:
    """The rows of a study, its erasers' files by name, and what was refused. Raises RunError: no such study."""
    path = folder / "study.json"
    if not path.is_file():
        raise RunError(f"'{folder}' has no study.json; expected the --out of causalcxr debias fit")
    known = json.loads(path.read_text("utf-8"))
    subject = _subject(Where(**known["where"]), Wanted(**known["wanted"]), known["seed"])
    files = {file.stem: file for file in sorted((folder / "erasers").glob("*.safetensors"))}
    return subject, files, known["refused"]


def count_of(folder: Path) -> int:
    """How many steps `study_of` has."""
    names = {RAW, CONTROL, *(file.stem for file in (folder / "erasers").glob("*.safetensors"))}
    return len(names) + 1


def study_of(folder: Path, step: Callable[[str], None] = lambda name: None) -> Study:
    """Measure every eraser of a folder, beside the raw embeddings and noise; `step` hears of each."""
    subject, files, refused = open_study(folder)
    erasers: dict[str, Any] = {RAW: None}
    erasers |= {name: load_eraser(file) for name, file in files.items()}
    if CONTROL not in erasers:
        erasers[CONTROL] = subject.fit(make_eraser(CONTROL))
    measured = {}
    for name, eraser in erasers.items():
        step(name)
        measured[name] = measure(subject, eraser)
    step("budget")
    return Study(subject, measured, floors(subject), _at_budget(subject, erasers, measured), refused)


def apply(
    eraser: Path, embeddings: Path, out: Path, table: Path | None, pairs: Path | None, id_column: str
) -> int:
    """Erase from a file into another, `.npy`; returns how many rows. Raises DataError: the table does not fit."""
    if out.suffix != ".npy":
        raise ConfigError(f"'{out}': expected a name that ends in .npy")
    found = load_eraser(eraser)
    z, ids = read_embeddings(embeddings, id_column)
    attributes = None
    if table is not None and "attributes" in found.NEEDS:
        wanted = Wanted(erase=found.coding_.names, id=id_column, numbers=_numbers(found))
        rows = join(z, ids, read_table(table, [id_column]), wanted)
        if len(rows.z) != len(z):
            reasons = ", ".join(f"{reason}: {count}" for reason, count in rows.lost.items())
            raise ConfigError(f"every embedding needs its attributes to be transformed ({reasons})")
        attributes = rows.erase
    made = found.transform(
        z, attributes, None if pairs is None else np.load(pairs, mmap_mode="r", allow_pickle=False)
    )
    write_atomically(out, lambda file: np.save(file, made, allow_pickle=False))
    return len(made)


def _numbers(eraser: Any) -> list[str]:
    return [attribute.name for attribute in eraser.coding_.attributes if not attribute.is_discrete]


def _subject(where: Where, wanted: Wanted, seed: int) -> Subject:
    z, ids = read_embeddings(Path(where.embeddings), wanted.id)
    pairs = np.load(where.pairs, mmap_mode="r", allow_pickle=False) if where.pairs else None
    rows = join(z, ids, read_table(Path(where.table), [wanted.id, wanted.patient]), wanted, pairs)
    return Subject(rows, _parts(rows, seed), seed)


def _parts(rows: Embedded, seed: int) -> Mapping[str, np.ndarray]:
    if rows.parts is None:
        return split_patients(rows.patients, seed)
    return parts_given(rows.parts, rows.patients, seed)


def _at_budget(
    subject: Subject, erasers: Mapping[str, Any], measured: Mapping[str, Measured]
) -> dict[str, dict[str, float]]:
    if BUDGET not in measured:
        return {}
    budget = measured[BUDGET].edit
    names = [name for name in measured if name not in (RAW, CONTROL)]
    return {name: accuracy_at_budget(subject, erasers[name], budget, measured[name]) for name in names}


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError: the folder holds a study of other rows or attributes."""
    path = out / "study.json"
    if path.is_file():
        known = json.loads(path.read_text("utf-8"))
        if any(known.get(key) != json.loads(json.dumps(value)) for key, value in settings.items()):
            raise ConfigError(
                f"'{out}' holds a study of other data or attributes; choose another --out or delete it"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' holds something else; choose another --out")
