"""Who and what is the same though it is written differently: people, files, and the films of one study."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

import pandas as pd

from causalcxr.data.people import person
from causalcxr.data.source import Source
from causalcxr.support.errors import DataError

__all__ = ["Names", "contradictions", "one_name_each", "shared_files"]

ROUNDED = re.compile(r"\d([.,]\d+)?e\+\d+", re.IGNORECASE)  # what a spreadsheet makes of a long number


@dataclass(frozen=True)
class Names:
    """The people of a table's rows: as written, and by a key that all spellings of one person share."""

    where: str
    written: Sequence[str]
    key_of: dict[str, str]  # of every spelling
    keys: list[str]
    people: list[str]  # the first spelling of each person

    def refuse_shared(self, splits: Sequence[str]) -> None:
        """Raise DataError if a person, under any spelling, is in two splits."""
        first: dict[str, tuple[str, str]] = {}
        for name, key, split in zip(self.written, self.keys, splits, strict=True):
            if not key or not split:
                continue
            known, before = first.setdefault(key, (name, split))
            if before != split and known == name:
                raise DataError(
                    f"{self.where}: patient '{name}' is in {before} and {split}; a patient belongs to one split"
                )
            if before != split:
                raise DataError(
                    f"{self.where}: patient '{known}' is in {before} and, written '{name}', in {split}; a patient "
                    "belongs to one split (if they are two people: data.patient_spelling=exact)"
                )

    def noted(self, kept: Collection[str]) -> dict[str, int]:
        """How many of the people kept are written in several ways."""
        spellings = Counter(self.key_of.values())
        several = sum(spellings[self.key_of[name]] > 1 for name in kept)
        return {"people whose id is written in several ways, such as 123 and 0123, each taken as one": several}


def one_name_each(written: Sequence[str], spelling: str, where: str) -> Names:
    """Every person under the first spelling that the table has; `spelling` as `data.patient_spelling`.

    Raises DataError: ids that a spreadsheet has rounded, so that several people share one.
    """
    distinct = dict.fromkeys(written)
    for name in distinct:
        if spelling == "merge" and ROUNDED.fullmatch(name):
            raise DataError(
                f"{where}: the patient '{name}' is a number that a spreadsheet has rounded; export the column as "
                "text (if it is a name: data.patient_spelling=exact)"
            )
    key_of = {name: person(name, spelling) for name in distinct}
    first: dict[str, str] = {}
    for name, key in key_of.items():
        first.setdefault(key, name)
    keys = [key_of[name] for name in written]
    return Names(where, written, key_of, keys, [first[key] for key in keys])


def shared_files(rows: pd.DataFrame, source: Source, refuse: bool) -> dict[str, int]:
    """How many files are in several rows. Files that aren't there are left to whoever reads them.

    Raises DataError: with `refuse`, a file that several people in two splits share.
    """
    written = rows["path"].tolist()
    files = [normpath(path) if "//" in path or "./" in path else path for path in written]
    counts = Counter(files)
    of: dict[str, list[int]] = {file: [] for file, n in counts.items() if n > 1}
    for row, file in enumerate(files if of else []):
        if file in of:
            of[file].append(row)
    root, repeated, shared = Path(str(source.about.get("root", ""))), 0, 0
    people, splits = rows["patient_id"].tolist(), rows["split"].tolist()
    for path, group in of.items():
        if not (root / path).is_file():
            continue
        several = list(dict.fromkeys(people[row] for row in group))
        repeated, shared = repeated + 1, shared + (len(several) > 1)
        parts = list(dict.fromkeys(splits[row] for row in group))
        if refuse and len(several) > 1 and len(parts) > 1:
            raise DataError(
                f"{source.where}: the file '{path}' is of patient '{several[0]}' and of '{several[1]}', in "
                f"{' and '.join(parts)}; name the right one (or data.shared_pixels=keep)"
            )
    return {"files that stand in several rows": repeated, "files that stand under several patients": shared}


def contradictions(
    rows: pd.DataFrame, constant: Sequence[str], attributes: Sequence[str], studies: Sequence[str] | None
) -> dict[str, int]:
    """People with more than one of what a person has one of, and studies whose films differ in an attribute.

    `studies` has every row of the table; a study is named within its patient.
    """
    people = rows["patient_id"].tolist()
    found = {f"patients with more than one {name}": _differing(people, rows[name].tolist()) for name in constant}
    if studies is not None:
        named = [studies[row] and (person, studies[row]) for person, row in zip(people, rows["row"], strict=True)]
        for name in attributes:
            differing = _differing(named, rows[name].tolist())
            found[f"studies whose films have more than one {name}"] = differing
    return found


def _differing(groups: Sequence[Any], values: Sequence[Any]) -> int:
    """How many groups have several values; a row with an empty group has none."""
    first: dict[Any, Any] = {}
    return len(
        {
            group
            for group, value in zip(groups, values, strict=True)
            if group and first.setdefault(group, value) != value
        }
    )
