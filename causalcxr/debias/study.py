"""A folder of fitted erasers: what they were fitted to, how the rows were parted, and what is measured."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.parts import parts_given, split_patients
from causalcxr.debias.protocol import RAW, Measured, Subject, accuracy_at_budget, check_labels, floors, measure
from causalcxr.debias.registry import load_eraser, make_eraser, save_eraser
from causalcxr.debias.tables import Embedded, Wanted, join, read_embeddings, read_pairs, read_table
from causalcxr.metrics.intervals import Interval
from causalcxr.support.digest import digest
from causalcxr.support.errors import ConfigError, RunError
from causalcxr.support.files import write_atomically, write_json

__all__ = ["CONTROL", "Study", "Where", "apply", "count_of", "fit", "open_study", "study_of"]

BUDGET = "leace"  # whose edit is the budget
CONTROL = "noise"  # is always measured
DIGESTED = 1000  # embeddings, by which a study knows its data again


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
    where: Where,
    wanted: Wanted,
    names: Sequence[str],
    out: Path,
    seed: int = 0,
    step: Callable[[str], None] = lambda name: None,
) -> tuple[Subject, dict[str, str]]:
    """Fit erasers to the part `fit` and write them into `out`; also gives what was refused, and why.

    Raises ConfigError: `out` holds another study, no such eraser, or all are refused. Raises DataError: files that
    do not fit.
    """
    erasers = {name: make_eraser(name) for name in names}
    subject = _subject(where, wanted, seed)
    settings = {"where": _absolute(where), "wanted": asdict(wanted), "seed": seed, "digest": _digest(subject)}
    refused = _claim(out, settings)
    write_json(out / "study.json", settings | {"refused": refused, "lost": subject.rows.lost})
    write_atomically(out / "parts.csv", _table_of_parts(subject).to_csv(index=False))
    for name, eraser in erasers.items():
        step(name)
        file = out / "erasers" / f"{name}.safetensors"
        refused.pop(name, None)
        try:
            save_eraser(subject.fit(eraser), file)
        except EmbeddingsError as error:
            refused[name] = str(error)
            file.unlink(missing_ok=True)
        write_json(out / "study.json", settings | {"refused": refused, "lost": subject.rows.lost})
    if not any((out / "erasers").glob("*.safetensors")):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        for path in (out / "study.json", out / "parts.csv"):
            path.unlink()
        raise ConfigError(f"no eraser could be fitted ({reasons})")
    return subject, {name: reason for name, reason in refused.items() if name in names}


def open_study(folder: Path) -> tuple[Subject, dict[str, Path], dict[str, str]]:
    """The rows of a study, its erasers' files by name, and what was refused.

    Raises RunError: no such study, or one whose embeddings or table have changed since.
    """
    known = _known(folder)
    try:
        subject = _subject(Where(**known["where"]), Wanted(**known["wanted"]), known["seed"])
        digest, refused = known["digest"], known["refused"]
    except (KeyError, TypeError) as error:
        raise RunError(f"'{folder / 'study.json'}' is none of causalcxr debias fit ({error})") from None
    if _digest(subject) != digest:
        raise RunError(
            f"the embeddings or the table of '{folder}' have changed since the fit; fit into another folder"
        )
    files = {file.stem: file for file in sorted((folder / "erasers").glob("*.safetensors"))}
    return subject, files, refused


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
    made = found.transform(z, attributes, None if pairs is None else read_pairs(pairs))
    write_atomically(out, lambda file: np.save(file, made, allow_pickle=False))
    return len(made)


def _numbers(eraser: Any) -> list[str]:
    return [attribute.name for attribute in eraser.coding_.attributes if not attribute.is_discrete]


def _subject(where: Where, wanted: Wanted, seed: int) -> Subject:
    z, ids = read_embeddings(Path(where.embeddings), wanted.id)
    pairs = read_pairs(Path(where.pairs)) if where.pairs else None
    rows = join(z, ids, read_table(Path(where.table), [wanted.id, wanted.patient]), wanted, pairs)
    subject = Subject(rows, _parts(rows, seed), seed)
    check_labels(subject)
    return subject


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
    names = [name for name in measured if name != CONTROL]
    return {name: accuracy_at_budget(subject, erasers[name], budget, measured[name]) for name in names}


def _claim(out: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """What an earlier fit of the same study refused. Raises ConfigError: the folder holds something else."""
    if (out / "study.json").is_file():
        known = _known(out)
        if any(known.get(key) != json.loads(json.dumps(value)) for key, value in settings.items()):
            raise ConfigError(
                f"'{out}' holds a study of other data or attributes; choose another --out or delete it"
            )
        return dict(known.get("refused", {}))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' holds something else; choose another --out")
    return {}


def _known(folder: Path) -> dict[str, Any]:
    """What study.json says. Raises RunError: there is none, or it is damaged."""
    path = folder / "study.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"'{folder}' has no study.json; expected the --out of causalcxr debias fit") from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"'{path}' can't be read ({' '.join(str(error).split())}); fit into another folder"
        ) from None
    return found if isinstance(found, dict) else {}


def _absolute(where: Where) -> dict[str, str]:
    """So that a report can be made from any folder."""
    return {name: str(Path(path).absolute()) if path else "" for name, path in asdict(where).items()}


def _digest(subject: Subject) -> str:
    """Of ids, parts and attributes of all rows, and of the embeddings of a thousand of them."""
    rows, n = subject.rows, len(subject.rows.z)
    some = np.unique(np.linspace(0, n - 1, DIGESTED).astype(int))
    table = _table_of_parts(subject).assign(**rows.erase, **rows.keep)
    parts = [table.to_csv(index=False), np.ascontiguousarray(rows.z[some]).tobytes().hex(), str(rows.z.shape)]
    return digest(
        parts if rows.pairs is None else [*parts, np.ascontiguousarray(rows.pairs[some]).tobytes().hex()]
    )


def _table_of_parts(subject: Subject) -> pd.DataFrame:
    named = np.empty(len(subject.rows.z), dtype=object)
    for part, rows in subject.parts.items():
        named[rows] = part
    return pd.DataFrame({"id": subject.rows.ids, "patient_id": subject.rows.patients, "part": named})
