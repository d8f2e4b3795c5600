"""Pictures that several rows share: counted, listed, and refused where they would lie in two splits.

The checksums that are taken while the images are written find the candidates, 4 bytes a row; only these are looked
at again.
"""

import hashlib

import numpy as np
import pandas as pd

from causalcxr.support.errors import DataError

__all__ = ["SharedPixelsError", "count_shared", "list_shared", "refuse_shared", "same_pictures"]

FILMS = "same pixels as another film"
PATIENTS = "same pixels under several patients"
ACROSS = "same pixels in several splits"


class SharedPixelsError(DataError):
    """A picture lies in two splits; what has been prepared is good, and serves once the person allows it."""


def same_pictures(checksums: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Of each row `(N,)` the first row that has exactly its pixels; itself, if no other has.

    `checksums` are equal where the pixels of `images` are; they may be equal elsewhere too.
    """
    same = np.arange(len(checksums))
    _, group, sizes = np.unique(checksums, return_inverse=True, return_counts=True)
    first: dict[bytes, int] = {}
    for row in np.flatnonzero(sizes[group.ravel()] > 1).tolist():
        same[row] = first.setdefault(hashlib.sha256(images[row].tobytes()).digest(), row)
    return same


def list_shared(rows: pd.DataFrame, same: np.ndarray) -> pd.DataFrame:
    """The rows whose pixels others have too: row, path, patient_id, split, and picture, its first row."""
    _, group, sizes = np.unique(same, return_inverse=True, return_counts=True)
    shared = sizes[group.ravel()] > 1
    listed = rows.loc[shared, ["row", "path", "patient_id", "split"]]
    listed = listed.assign(picture=rows["row"].to_numpy()[same[shared]])
    return listed.sort_values(["picture", "row"]).reset_index(drop=True)


def count_shared(listed: pd.DataFrame) -> dict[str, int]:
    """Films that share their pixels, and pictures that are under several patients or in several splits."""
    return {
        FILMS: len(listed),
        PATIENTS: len(_several(listed, "patient_id")),
        ACROSS: len(_several(listed, "split")),
    }


def refuse_shared(listed: pd.DataFrame, where: str, file: str) -> None:
    """Raise SharedPixelsError if a picture lies in two splits; `file` is where they are listed."""
    across = _several(listed, "split")
    if not across:
        return
    picture = listed[listed["picture"] == across[0]]
    paths = dict(zip(picture["split"].tolist(), picture["path"].tolist(), strict=True))
    one, other = [f"'{path}' ({split})" for split, path in paths.items()][:2]
    more = f" ('{file}' lists all {len(across):,} such pictures)" if len(across) > 1 else ""
    raise SharedPixelsError(
        f"{where}: {one} and {other} have the same pixels{more}; a picture belongs to one split: "
        "change the split column, leave rows out, or allow it by data.shared_pixels=keep"
    )


def _several(listed: pd.DataFrame, column: str) -> list[int]:
    """The pictures that have several values in this column."""
    pairs = listed[["picture", column]].drop_duplicates()
    pictures, counts = np.unique(np.asarray(pairs["picture"]), return_counts=True)
    return pictures[counts > 1].tolist()
