"""A folder of DICOM files; what their headers lack (race, findings, splits) comes from a CSV beside them."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from causalcxr.data.collection import cells, reject, reject_views, rows_of
from causalcxr.data.config import DataConfig
from causalcxr.data.downloads import finished_name
from causalcxr.data.files import channels_of, existing_root, fingerprint
from causalcxr.data.people import age_in_years, person, sex
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["dicom_source", "is_dicom"]

ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
MAGIC = slice(128, 132)  # where a file without ending says DICM
KEYS = ("path", "SOPInstanceUID", "PatientID")  # a column of the CSV that says which files a row is about
INVERSE = "MONOCHROME2 with an INVERSE shape"
DEFAULT_TABLE = DataConfig().table


def dicom_source(config: DataConfig, graph: Graph) -> Source:
    """Every DICOM file under the root. Columns: sex, age, view, study_date, and those of the CSV, which win.

    A patient is known by a hash of PatientID. docs/data/dicom.md says what is read and how pixels are shown.
    Raises DataError: no DICOM file, pydicom missing, a CSV that can't be joined.
    """
    try:
        from causalcxr.data.dicom_file import read_dicom
    except ImportError as error:
        raise DataError(f"source dicom: {error}; pip install 'causalcxr[dicom]'") from None
    root = existing_root(config)
    files = _dicom_files(root)
    if not files:
        raise DataError(f"no DICOM file ({', '.join(ENDINGS)}, or none with DICM at byte 128) under '{root}'")
    extra = root / config.table
    joined = read_table(extra) if extra.is_file() or config.table != DEFAULT_TABLE else None
    key = {"files": fingerprint(files), "paths": hashlib.sha256("\n".join(map(str, files)).encode()).hexdigest()}
    if joined is not None:
        key["table"] = hashlib.sha256(extra.read_bytes()).hexdigest()
    channels = channels_of(graph)
    for_processing = config.for_processing == "keep"

    @cache
    def read() -> _Headers:  # only when a cohort is prepared
        return _read_headers(files, root, joined, extra, config)

    def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray | Unusable]]:
        return [read_dicom(files[row], sizes, channels, for_processing) for row in rows]

    about = {"source": config.source, "root": str(root), "table": config.table if joined is not None else ""}
    about |= {"views": list(config.views)} | ({"for_processing": "keep"} if for_processing else {})
    where = f"DICOM files in '{root}'"
    return Source(
        where, about, key, lambda: read().table, pixels, lambda: read().unusable, lambda: {INVERSE: read().inverse}
    )


class _Headers(NamedTuple):
    table: pd.DataFrame
    unusable: dict[int, Unusable]
    inverse: list[int]  # rows whose polarity is doubtful


def _dicom_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and is_dicom(path))


def is_dicom(path: Path) -> bool:
    """By its ending; a file without one by its content, unless it is an index of others (DICOMDIR).

    A leftover of a download is one if the file that it was to become would be.
    """
    if suffix := Path(finished_name(path.name)).suffix:
        return suffix.lower() in ENDINGS
    if path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(MAGIC.stop)[MAGIC] == b"DICM"


def _read_headers(
    files: Sequence[Path], root: Path, joined: pd.DataFrame | None, extra: Path, config: DataConfig
) -> _Headers:
    from causalcxr.data.dicom_file import TAGS, read_tags

    read = [read_tags(file) for file in files]
    unusable = {row: tags for row, tags in enumerate(read) if isinstance(tags, Unusable)}
    blank = dict.fromkeys(TAGS, "")
    known = pd.DataFrame([blank if isinstance(tags, Unusable) else tags for tags in read], dtype=str)
    tags = {tag: pd.Series(known[tag]) for tag in TAGS}
    tags["path"] = pd.Series([file.relative_to(root).as_posix() for file in files], dtype=str)
    columns = {
        "path": tags["path"],
        "patient_id": _pseudonyms(tags["PatientID"], config),
        "sex": sex(tags["PatientSex"]),
        "age": age_in_years(tags["PatientAge"]),
        "view": tags["ViewPosition"],
        "study_date": tags["StudyDate"],
    }
    if joined is not None:
        columns |= _join(tags, joined, extra, unusable)
    reject_views(unusable, columns["view"], config)
    inverse = (tags["PhotometricInterpretation"] == "MONOCHROME2") & (tags["PresentationLUTShape"] == "INVERSE")
    return _Headers(pd.DataFrame(columns), unusable, np.flatnonzero(inverse).tolist())


def _join(
    tags: dict[str, pd.Series], joined: pd.DataFrame, extra: Path, unusable: dict[int, Unusable]
) -> dict[str, pd.Series]:
    """The columns of the CSV for every file, by the first of KEYS that it has."""
    key = next((name for name in KEYS if name in joined.columns), None)
    if key is None:
        raise DataError(f"table '{extra}' has none of the columns {', '.join(KEYS)} to join it by")
    rows = rows_of(cells(joined, key, extra), tags[key], extra)
    reject(unusable, rows < 0, "no record", f"{key} '{{}}' is not in the CSV", tags[key])
    others = [name for name in joined.columns if name not in KEYS]
    return {name: cells(joined, name, extra).iloc[rows].reset_index(drop=True) for name in others}


def _pseudonyms(patients: pd.Series, config: DataConfig) -> pd.Series:
    """The same for the same person, without the number that a hospital knows; a list of all numbers undoes it."""
    spelled = patients.map(lambda name: person(name, config.patient_spelling))
    return spelled.map(lambda name: hashlib.sha256(name.encode()).hexdigest()[:16] if name else "")
