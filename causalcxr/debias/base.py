"""What an eraser is: an estimator of scikit-learn's conventions that is fitted to embeddings and attributes."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from causalcxr.debias.coding import Coding, as_columns
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.moments import blocks, finite

__all__ = ["Eraser", "Fitting", "pairs_of"]


class Fitting:
    """What an eraser is fitted to, checked.

    `z` `(N, D)`; `attributes` by name and their `coding`, `keep` and `keep_coding` likewise (None without);
    `groups` `(N,)`: whose row it is; `pairs` `(N, G, D)`: embeddings of every row's counterfactuals, or None.
    """

    def __init__(self, z: np.ndarray, y: Any, keep: Any, groups: Any, pairs: Any):
        n = len(z)
        self.z, self.attributes = z, as_columns(y, n)
        self.coding = Coding.fit(self.attributes)
        self.keep = None if keep is None else as_columns(keep, n, "keep")
        self.keep_coding = None if self.keep is None else Coding.fit(self.keep)
        self.groups = np.arange(n) if groups is None else np.asarray(groups)
        self.pairs = None if pairs is None else _checked_pairs(pairs, z)

    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every feature, `(D,)` each. Raises EmbeddingsError: NaN, infinity."""
        for rows, block in blocks(self.z):
            finite(block, rows.start)
        return self.z.mean(axis=0, dtype=np.float64), self.z.std(axis=0, dtype=np.float64)

    @property
    def codes(self) -> np.ndarray:
        """The attributes' columns `(N, K)`."""
        return self.coding.encode(self.attributes)


class Eraser(TransformerMixin, BaseEstimator):
    """`fit(Z, attributes)`, then `transform(Z)`, of embeddings `(N, D)`.

    Their shape stays, and float32; all else becomes float64.

    Attributes: an array `(N,)` or `(N, K)`, a mapping or a table. Text and whole numbers are labels, decimals
    are numbers. A subclass gives `_fit`, and `_transform` of a block of rows; `ARRAYS` names what is saved.
    """

    ARRAYS: tuple[str, ...] = ()
    NEEDS: tuple[str, ...] = ()  # for transform, besides Z: "attributes", "pairs"
    n_features_in_: int
    coding_: Coding

    def fit(self, X: Any, y: Any = None, keep: Any = None, groups: Any = None, pairs: Any = None) -> "Eraser":
        """Learn what to take away.

        `X` `(N, D)`: embeddings. `y`: attributes to erase. `keep`: labels to keep, for those erasers that heed
        them. `groups` `(N,)`: whose row it is. `pairs` `(N, G, D)`: embeddings of the rows' counterfactuals.
        Raises EmbeddingsError: constant or missing attributes, NaN embeddings, lengths that differ.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X = validate_data(
            self,
            X,
            dtype=[np.float64, np.float32],
            ensure_all_finite=False,
            ensure_min_samples=2,
            ensure_min_features=1,
        )
        given = Fitting(X, y, keep, groups, pairs)
        self.coding_ = given.coding
        self._fit(given)
        return self

    def transform(self, X: Any, attributes: Any = None, pairs: Any = None) -> np.ndarray:
        """Embeddings `(N, D)` without the attributes.

        `attributes`: of these rows, for erasers that need them (`NEEDS`). `pairs`: of these rows.
        Raises EmbeddingsError: something that is needed is not given.
        """
        check_is_fitted(self, "coding_")
        shape = getattr(X, "shape", ())
        if len(shape) == 2 and shape[1] != self.n_features_in_:
            raise EmbeddingsError(
                f"X has {shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input"
            )
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=False)
        given = {"attributes": attributes, "pairs": pairs}
        for name in self.NEEDS:
            if given[name] is None:
                raise EmbeddingsError(f"{type(self).__name__} needs the {name} of the rows that it transforms")
        columns = None if attributes is None else as_columns(attributes, len(X))
        checked = None if pairs is None else _checked_pairs(pairs, X)
        made = np.empty(X.shape, dtype=X.dtype)
        for rows, block in blocks(X):
            of = None if columns is None else {name: values[rows] for name, values in columns.items()}
            self._write(
                made[rows], finite(block, rows.start), of, None if checked is None else checked[rows], rows
            )
        return made

    def _write(
        self,
        out: np.ndarray,
        z: np.ndarray,
        attributes: dict[str, np.ndarray] | None,
        pairs: np.ndarray | None,
        rows: slice,
    ) -> None:
        """Transform a block into its place."""
        out[...] = self._transform(z, attributes, pairs, rows)

    def _fit(self, given: Fitting) -> None:
        raise NotImplementedError

    def _transform(
        self, z: np.ndarray, attributes: dict[str, np.ndarray] | None, pairs: np.ndarray | None, rows: slice
    ) -> np.ndarray:
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """What `transform` stands on, for the file."""
        return {name: np.asarray(getattr(self, name)) for name in self.ARRAYS}

    def take_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Undo `arrays`, after `coding_` and `n_features_in_` are set."""
        for name in self.ARRAYS:
            setattr(self, name, arrays[name])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _checked_pairs(pairs: Any, z: np.ndarray) -> np.ndarray:
    pairs = np.asarray(pairs) if not isinstance(pairs, np.ndarray) else pairs
    if pairs.ndim != 3 or (pairs.shape[0], pairs.shape[2]) != z.shape:
        raise EmbeddingsError(
            f"pairs have the shape {pairs.shape}; expected ({len(z)}, counterfactuals, {z.shape[1]})"
        )
    for rows, block in blocks(pairs):
        if not np.isfinite(block).all():
            raise EmbeddingsError(f"pairs hold NaN or infinity in or after row {rows.start}; leave these rows out")
    return pairs


def pairs_of(given: Fitting) -> np.ndarray:
    """The pairs of a fit. Raises EmbeddingsError: none is given."""
    if given.pairs is None:
        raise EmbeddingsError(
            "this eraser is fitted to pairs, embeddings of the rows' counterfactuals; none is given"
        )
    return given.pairs
