"""Embeddings and their table from files; every row is accounted for.

Embeddings: `.npy`, `.npz`, `.safetensors` (an array `embeddings`, and `ids` where there are any), `.csv` or
`.parquet` (a column of ids, all others are features). What the format allows is read from disk when it is
needed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.debias.moments import blocks
from causalcxr.support.errors import ConfigError, DataError, nearest

__all__ = ["ID", "PATIENT", "Embedded", "Wanted", "join", "read_embeddings", "read_pairs", "read_table"]

ID, PATIENT = "id", "patient_id"
NAMES = ("embeddings", "ids")
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_TYPES |= {f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)}


@dataclass(frozen=True)
class Wanted:
    """What is taken of a table: attributes to erase and to keep, and what its columns are."""

    erase: Sequence[str]
    keep: Sequence[str] = ()
    numbers: Sequence[str] = ()
    labels: Sequence[str] = ()
    id: str = ID
    patient: str = PATIENT
    parts: str = ""


@dataclass(frozen=True)
class Embedded:
    """Rows that have an embedding and all attributes: `z` `(N, D)`, `ids`, `patients`, attributes by name.

    `parts`: what the table says of the part of each row, or None. `pairs` `(N, G, D)`, or None. `lost`: rows
    that are left out, by reason. `remarks`: what was taken for granted.
    """

    z: np.ndarray
    ids: np.ndarray
    patients: np.ndarray
    erase: dict[str, np.ndarray]
    keep: dict[str, np.ndarray]
    parts: np.ndarray | None
    pairs: np.ndarray | None
    lost: dict[str, int]
    remarks: Sequence[str] = ()


def read_embeddings(path: Path, id_column: str = ID) -> tuple[np.ndarray, np.ndarray | None]:
    """Embeddings `(N, D)` and the rows' ids, None where the file has none.

    Raises DataError: no such file, a format that is not known, or no table of numbers in it.
    """
    readers = {
        ".npy": lambda: (_load(path, mmap_mode="r"), None),
        ".npz": lambda: _from_arrays(path, _load(path)),
        ".safetensors": lambda: _from_arrays(path, _mapped(path)),
        ".csv": lambda: _from_columns(path, read_table(path, [id_column]), id_column),
        ".parquet": lambda: _from_columns(path, read_table(path, [id_column]), id_column),
    }
    if path.suffix not in readers:
        raise DataError(f"'{path}': {nearest(path.suffix, readers)}")
    if not path.is_file():
        raise DataError(f"no file '{path}'")
    z, ids = readers[path.suffix]()
    if not isinstance(z, np.ndarray) or z.ndim != 2 or z.dtype.kind != "f" or not z.size:
        raise DataError(f"'{path}' holds {_described(z)}; expected decimals (rows, features)")
    if ids is not None and ids.shape != z.shape[:1]:
        raise DataError(f"'{path}' has {len(z)} embeddings, and ids of the shape {ids.shape}; expected one a row")
    return z, None if ids is None else _texts(ids)


def read_table(path: Path, texts: Sequence[str] = (ID, PATIENT)) -> pd.DataFrame:
    """A CSV or Parquet file; `texts`: columns that stay text, for 007 is no 7. Raises DataError: unreadable."""
    if not path.is_file():
        raise DataError(f"no file '{path}'")
    try:
        if path.suffix == ".parquet":
            found = pd.read_parquet(path)
            return found if isinstance(found.index, pd.RangeIndex) else found.reset_index()
        missing = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]  # "None" may be a label
        return pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=missing)
    except ImportError:
        raise ConfigError(f"'{path}': Parquet needs pyarrow; pip install 'causalcxr[debias]'") from None
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' can't be read: {' '.join(str(error).split())}") from None


def join(
    z: np.ndarray,
    ids: np.ndarray | None,
    table: pd.DataFrame,
    wanted: Wanted,
    pairs: np.ndarray | None = None,
) -> Embedded:
    """Rows with both an embedding and a row of the table, in the order of the embeddings.

    Without ids the table has a row for each embedding, in order. Raises DataError: nothing fits together.
    """
    for name in (*wanted.erase, *wanted.keep, *([wanted.parts] if wanted.parts else [])):
        if name not in table:
            raise DataError(f"the table has no column '{name}'; {nearest(name, table.columns)}")
    if pairs is not None and pairs.shape != (len(z), pairs.shape[1] if pairs.ndim == 3 else -1, z.shape[1]):
        raise DataError(f"pairs are {_described(pairs)}; expected ({len(z)}, counterfactuals, {z.shape[1]})")
    _refuse_names(table, wanted)
    places, rows, lost = _matched(len(z), ids, table, wanted.id)
    picked = table.iloc[rows]
    whose = [*wanted.erase, *wanted.keep, *([wanted.patient] if wanted.patient in table else [])]
    complete = picked[whose].notna().all(axis=1).to_numpy()
    if gaps := int((~complete).sum()):
        lost["an attribute, or whose it is, is missing"] = gaps
    if not complete.any():
        raise DataError(f"no row has all of {', '.join(whose)}")
    places, picked = places[complete], picked[complete]
    columns = {name: _column(picked[name], wanted) for name in (*wanted.erase, *wanted.keep)}
    remarks = [] if ids is not None else ["the embeddings have no ids: rows of the table are taken in order"]
    if wanted.patient not in table:
        remarks.append(f"the table has no column '{wanted.patient}': every row is taken for another patient")
    everything = len(places) == len(z) and (places == np.arange(len(z))).all()
    found = z if everything else z[places]
    names = _texts(picked[wanted.id]) if wanted.id in picked else places.astype(str)
    _refuse_gaps(found, names)
    return Embedded(
        found,
        names,
        picked[wanted.patient].to_numpy().astype(str) if wanted.patient in picked else names,
        {name: columns[name] for name in wanted.erase},
        {name: columns[name] for name in wanted.keep},
        picked[wanted.parts].to_numpy().astype(str) if wanted.parts else None,
        None if pairs is None else pairs if everything else pairs[places],
        lost,
        remarks,
    )


def _matched(
    n: int, ids: np.ndarray | None, table: pd.DataFrame, id_column: str
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Row numbers of embeddings and of the table that belong together, and how many are left."""
    if ids is None:
        if len(table) != n:
            raise DataError(
                f"{n:,} embeddings without ids and a table of {len(table):,} rows; expected one for each, in order"
            )
        return np.arange(n), np.arange(n), {}
    if id_column not in table:
        raise DataError(f"the table has no column '{id_column}' to find the embeddings by; say which with --id")
    of_table = _texts(table[id_column])
    for what, names in (("embeddings", ids), ("table", of_table)):
        different, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"{int((counts > 1).sum())} ids of the {what} are there more than once, such as "
                f"'{different[counts > 1][0]}'"
            )
    rows = pd.Index(of_table).get_indexer(pd.Index(ids))
    there = rows >= 0
    if not there.any():
        raise DataError(
            f"no id is in both: the embeddings have such as '{ids[0]}', the table such as '{of_table[0]}'"
        )
    lost = {"an embedding without a row of the table": int((~there).sum())}
    lost["a row of the table without an embedding"] = len(table) - int(there.sum())
    return np.flatnonzero(there), rows[there], {reason: count for reason, count in lost.items() if count}


def _refuse_names(table: pd.DataFrame, wanted: Wanted) -> None:
    """Raises DataError: a column that is named and is not there, or one that is to be erased and kept."""
    used = [*wanted.erase, *wanted.keep]
    for name in (wanted.patient, wanted.parts):
        if name not in ("", PATIENT) and name not in table:
            raise DataError(f"the table has no column '{name}'; {nearest(name, table.columns)}")
    for name in (*wanted.numbers, *wanted.labels):
        if name not in used:
            raise DataError(f"'{name}' is called a number or labels, and is neither erased nor kept")
    if twice := [name for name in used if used.count(name) > 1]:
        raise DataError(f"'{twice[0]}' is named twice among what is erased and kept")


def _column(values: pd.Series, wanted: Wanted) -> np.ndarray:
    """Without gaps. Whole numbers that gaps had made decimals are whole again."""
    name = str(values.name)
    if name in wanted.numbers:
        numbers = np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
        if len(bad := np.flatnonzero(np.isnan(numbers))):
            raise DataError(f"'{name}' is to be a number, and '{values.iloc[bad[0]]}' is none")
        return numbers
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype(np.int64)
    if name in wanted.labels or values.dtype.kind not in "fiu":
        return np.asarray([str(value) for value in values], dtype=object)
    return values.to_numpy(dtype=np.float64 if values.dtype.kind == "f" else np.int64)


def _refuse_gaps(z: np.ndarray, ids: np.ndarray) -> None:
    bad = np.concatenate([~np.isfinite(block).all(axis=1) for _, block in blocks(z)])
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} embeddings hold NaN or infinity, such as that of '{ids[bad][0]}'; leave them out"
        )


def _load(path: Path, **options: Any) -> Any:
    try:
        return np.load(path, allow_pickle=False, **options)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"'{path}' can't be read: {' '.join(str(error).split())}") from None


def read_pairs(path: Path) -> np.ndarray:
    """Embeddings of counterfactuals `(N, G, D)` from a .npy file. Raises DataError: no such file or array."""
    found = _load(path, mmap_mode="r")
    if not isinstance(found, np.ndarray) or found.ndim != 3 or found.dtype.kind != "f" or not found.size:
        raise DataError(f"'{path}' holds {_described(found)}; expected decimals (rows, counterfactuals, features)")
    return found


def _from_arrays(path: Path, arrays: Any) -> tuple[np.ndarray, np.ndarray | None]:
    names = list(arrays.keys()) if hasattr(arrays, "keys") else []
    if NAMES[0] not in names:
        raise DataError(f"'{path}' has the arrays {', '.join(names) or 'none'}; expected one called 'embeddings'")
    try:
        return arrays[NAMES[0]], arrays[NAMES[1]] if NAMES[1] in names else None
    except ValueError as error:
        raise DataError(f"'{path}': {' '.join(str(error).split())}; save ids as text or numbers") from None


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, read from disk when they are needed."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        found = {}
        for name in [name for name in NAMES if name in header]:
            of = header[name]
            if of["dtype"] not in _TYPES:
                raise ValueError(f"'{name}' is of the type {of['dtype']}, expected one of {', '.join(_TYPES)}")
            shape, offset = tuple(of["shape"]), 8 + length + of["data_offsets"][0]
            found[name] = np.asarray(np.memmap(path, _TYPES[of["dtype"]], "r", offset, shape))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' can't be read as safetensors: {' '.join(str(error).split())}") from None


def _from_columns(path: Path, table: pd.DataFrame, id_column: str) -> tuple[np.ndarray, np.ndarray | None]:
    features = [name for name in table.columns if name != id_column]
    if bad := [name for name in features if table[name].dtype.kind not in "fiu"]:
        raise DataError(f"'{path}': column '{bad[0]}' is no number; say which column has the ids with --id")
    ids = table[id_column].to_numpy() if id_column in table else None
    return table[features].to_numpy(dtype=np.float64), ids


def _texts(values: Any) -> np.ndarray:
    """Ids as text; whole numbers that came as decimals without their point."""
    values = np.asarray(values)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values % 1 == 0).all():
        values = values.astype(np.int64)
    return values.astype(str)


def _described(z: Any) -> str:
    return f"{z.dtype} {z.shape}" if isinstance(z, np.ndarray) else type(z).__name__
