"""Attributes as columns of numbers: labels one-hot, numbers standardised; whole numbers are labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.debias.errors import EmbeddingsError
from causalcxr.support.errors import nearest

__all__ = ["Attribute", "Coding", "as_columns"]

MOST_LABELS = 20  # of whole numbers, without a word on whether they are codes


@dataclass(frozen=True)
class Attribute:
    """`labels` of a discrete one, as text; of a number none, but its mean and standard deviation."""

    name: str
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def is_discrete(self) -> bool:
        return bool(self.labels)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The number of each row's label. Raises EmbeddingsError: a label that was not there in the fit."""
        found = pd.Index(self.labels).get_indexer(pd.Index(_texts(values)))
        if len(unknown := np.flatnonzero(found < 0)):
            raise EmbeddingsError(
                f"'{self.name}': {len(unknown)} rows have labels that the fit had not, such as "
                f"'{_texts(values)[unknown[0]]}'; it had {', '.join(self.labels)}"
            )
        return found

    def encode(self, values: np.ndarray) -> np.ndarray:
        """`(N, labels)` of zeros and ones, or `(N, 1)` of standard deviations from the mean."""
        if self.is_discrete:
            return np.eye(len(self.labels))[self.codes(values)]
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise EmbeddingsError(f"'{self.name}' was a number in the fit, and has values that are none") from None
        if not np.isfinite(numbers).all():
            raise EmbeddingsError(
                f"'{self.name}' is missing or not finite in {int((~np.isfinite(numbers)).sum())} rows"
            )
        return ((numbers - self.mean) / self.scale)[:, None]


class Coding:
    """How attributes become numbers, as the rows of a fit settled it."""

    def __init__(self, attributes: list[Attribute]):
        self.attributes = attributes

    @classmethod
    def fit(cls, table: Mapping[str, np.ndarray]) -> "Coding":
        """From columns by name. Raises EmbeddingsError: a constant, missing values, many whole numbers."""
        return cls([_describe(name, values) for name, values in table.items()])

    @property
    def names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]

    def encode(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """All attributes side by side, `(N, K)` float64."""
        return np.hstack([a.encode(self._column(table, a.name)) for a in self.attributes])

    def groups(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """The number of each row's combination of labels, `(N,)`; 0 where no attribute has labels."""
        found: Any = 0
        for attribute in self.attributes:
            if attribute.is_discrete:
                codes = attribute.codes(self._column(table, attribute.name))
                found = found * len(attribute.labels) + codes
        return np.broadcast_to(np.asarray(found), (len(next(iter(table.values()))),))

    def _column(self, table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        if name not in table:
            raise EmbeddingsError(f"no attribute '{name}' in the table; {nearest(name, table)}")
        return np.asarray(table[name])

    def to_list(self) -> list[dict[str, Any]]:
        """As JSON has it."""
        return [asdict(attribute) for attribute in self.attributes]

    @classmethod
    def from_list(cls, saved: list[dict[str, Any]]) -> "Coding":
        return cls([Attribute(**{**one, "labels": tuple(one["labels"])}) for one in saved])


def as_columns(attributes: Any, rows: int, what: str = "attribute") -> dict[str, np.ndarray]:
    """Columns by name, of a table, a mapping, or an array `(N,)` or `(N, K)`.

    Raises EmbeddingsError: a length that is not that of the embeddings.
    """
    if isinstance(attributes, pd.Series):
        attributes = attributes.to_frame(str(attributes.name or what))
    if isinstance(attributes, pd.DataFrame):
        columns = {str(name): _plain(pd.Series(attributes[name])) for name in attributes}
    elif isinstance(attributes, Mapping):
        columns = {str(name): _plain(pd.Series(values)) for name, values in attributes.items()}
    else:
        table = np.asarray(attributes)
        table = table[:, None] if table.ndim == 1 else table
        names = [what] if table.shape[1] == 1 else [f"{what}{i + 1}" for i in range(table.shape[1])]
        columns = {name: table[:, i] for i, name in enumerate(names)}
    if not columns:
        raise EmbeddingsError(f"no {what} is given")
    for name, values in columns.items():
        if values.shape != (rows,):
            raise EmbeddingsError(
                f"'{name}' has the shape {values.shape}; expected ({rows},), as the embeddings have rows"
            )
    return columns


def _plain(values: pd.Series) -> np.ndarray:
    """As numpy has it: labels of a category as text, objects that are all numbers as numbers."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return np.asarray([None if pd.isna(value) else str(value) for value in values], dtype=object)
    return values.infer_objects().to_numpy() if values.dtype == object else values.to_numpy()


def _describe(name: str, values: np.ndarray) -> Attribute:
    values = np.asarray(values)
    if missing := int(pd.isna(values).sum()):
        raise EmbeddingsError(f"'{name}' is missing in {missing} of {len(values)} rows; leave these out")
    different = pd.unique(pd.Series(values))
    if len(different) < 2:
        raise EmbeddingsError(
            f"'{name}' is '{different[0]}' in all {len(values)} rows: there is nothing to learn of it"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise EmbeddingsError(f"'{name}' is not finite in {int((~np.isfinite(values)).sum())} rows")
        mean, scale = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        if not 1e-100 < scale < 1e100:
            raise EmbeddingsError(f"'{name}' has a standard deviation of {scale:g}; give it in another unit")
        return Attribute(name, mean=mean, scale=scale)
    if values.dtype.kind in "iu" and len(different) > MOST_LABELS:
        raise EmbeddingsError(
            f"'{name}' has {len(different)} different whole numbers; say whether they are labels or a number "
            f"(--labels {name} or --numbers {name}; in Python text or float)"
        )
    if len(different) > max(MOST_LABELS, len(values) / 2):
        raise EmbeddingsError(
            f"'{name}' has {len(different)} labels in {len(values)} rows; expected labels that rows share"
        )
    return Attribute(name, tuple(sorted(set(_texts(values).tolist()), key=_sortable)))


def _texts(values: np.ndarray) -> np.ndarray:
    return np.asarray([str(value) for value in np.asarray(values).tolist()], dtype=object)


def _sortable(text: str) -> tuple[float, str]:
    """Numbers in the order of numbers, then words."""
    try:
        return float(text), text
    except ValueError:
        return np.inf, text
