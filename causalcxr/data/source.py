"""What a reader of a source gives: a table as the source has it, and the pixels of any of its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["Source", "Unusable"]


class Unusable(NamedTuple):
    """Why a row can't be used: a reason that is counted, and a detail for the person who looks it up."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Source:
    """One opened source; nothing but its table has been read.

    `table()` has text columns only, under the source's own names. `pixels(rows, sizes)` reads the rows of the
    table with these numbers, each once: for every row `uint8 (C, size, size)` or Unusable for each of the sizes.
    What comes for one size doesn't depend on the others, nor what comes for one row. `unusable()` has the rows
    that the reader itself rejects, such as lateral views. `about` is stored with the cohort; `key` is whatever
    else the content depends on. Both are JSON.
    """

    where: str  # how an error names it: "table '/data/metadata.csv'"
    about: dict[str, Any]
    key: dict[str, Any]
    table: Callable[[], pd.DataFrame]
    pixels: Callable[[Sequence[int], Sequence[int]], Sequence[Sequence[np.ndarray | Unusable]]]
    unusable: Callable[[], Mapping[int, Unusable]] = dict  # none
