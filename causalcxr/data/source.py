"""What a reader of a source gives: a table as the source has it, and the pixels of any of its rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["Source", "Unusable", "UnusableError"]


class Unusable(NamedTuple):
    """Why a row can't be used: a reason that is counted, and a detail for the person who looks it up."""

    reason: str
    detail: str


class UnusableError(ValueError):
    """Raised where a file is decoded, for a reason that is counted by itself; the message has no path."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """One opened source; nothing but its table has been read.

    `table()` has text columns only, under the source's own names. `pixels(rows, sizes)` reads the rows of the
    table with these numbers, each once: for every row `uint8 (C, size, size)` or Unusable for each of the sizes.
    What comes for one size doesn't depend on the others, nor what comes for one row. `unusable()` has the rows
    that the reader itself rejects, such as lateral views. `remarks()` says what should be told of rows that are
    kept all the same, and of which. `about` is stored with the cohort; `key` is whatever else the content depends
    on. Both are JSON.
    """

    where: str  # how an error names it: "table '/data/metadata.csv'"
    about: dict[str, Any]
    key: dict[str, Any]
    table: Callable[[], pd.DataFrame]
    pixels: Callable[[Sequence[int], Sequence[int]], Sequence[Sequence[np.ndarray | Unusable]]]
    unusable: Callable[[], Mapping[int, Unusable]] = dict  # none
    remarks: Callable[[], Mapping[str, Collection[int]]] = dict
