"""The regressions that the tests stand on, by scikit-learn: expected scores, and the chances of an attribute.

A regression is ridge, and boosted trees on what it leaves if there are enough rows for them. Chances are those of
a logistic regression. Both see the conditioning variables standardised.
"""

from typing import Any

import numpy as np

__all__ = ["Attribute", "Regression", "chances_by_others", "expected_by_others", "folds_by_group"]

_ROWS_FOR_TREES = 400
_PENALTIES = tuple(np.logspace(-3, 3, 13))  # of ridge, chosen by leave-one-out
_TREES = 200  # at most: their number is chosen on a tenth of the rows


class Attribute:
    """An attribute `(N,)` as columns: indicators of its labels but the first, or the number, standardised.

    `columns` `(N, k)`. `codes` `(N,)` numbers the labels from 0; None of a number. Whole numbers, booleans and
    text are labels, floating-point numbers are numbers.
    """

    def __init__(self, values: Any):
        values = np.asarray(values)
        self.codes: np.ndarray | None = None
        if values.dtype.kind == "f":
            spread = values.std()
            self.labels = np.empty(0)
            self.columns = ((values - values.mean()) / (spread if spread > 0 else 1.0))[:, None]
        else:
            self.labels, self.codes = np.unique(values, return_inverse=True)
            self.columns = self.columns_of(self.codes)

    def columns_of(self, codes: np.ndarray) -> np.ndarray:
        """The columns of other labels `(N,)`, given by their numbers."""
        return (codes[:, None] == np.arange(1, len(self.labels))).astype(np.float64)


class Regression:
    """`E[y | a, z]` or `E[y | z]`, fitted when it is built. `a` `(N, k)`: columns of the attribute, or None."""

    def __init__(self, y: np.ndarray, z: np.ndarray, a: np.ndarray | None = None, seed: int = 0):
        from sklearn.linear_model import RidgeCV  # slow to import, and few commands need it
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._linear = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(_products(z, a), y)
        self._trees = None
        if len(y) >= _ROWS_FOR_TREES:
            from sklearn.ensemble import HistGradientBoostingRegressor

            early: Any = True  # its stubs admit text alone
            trees = HistGradientBoostingRegressor(
                max_iter=_TREES, early_stopping=early, max_leaf_nodes=15, n_iter_no_change=5, random_state=seed
            )
            self._trees = trees.fit(_beside(z, a), y - self._linear.predict(_products(z, a)))

    def __call__(self, z: np.ndarray, a: np.ndarray | None = None) -> np.ndarray:
        """Expected y of other rows `(N,)`."""
        expected = self._linear.predict(_products(z, a))
        return expected if self._trees is None else expected + self._trees.predict(_beside(z, a))


class Chances:
    """`P(label | z)` `(N, labels)`, fitted when it is built. A label that was not seen has chance 0."""

    def __init__(self, codes: np.ndarray, z: np.ndarray, labels: int):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._labels, self._seen = labels, np.unique(codes)
        self._model = None
        if len(self._seen) > 1:
            self._model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(z, codes)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        chances = np.zeros((len(z), self._labels))
        chances[:, self._seen] = 1.0 if self._model is None else self._model.predict_proba(z)
        return chances


def folds_by_group(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for every row, `(N,)` from 0; the rows of a group stay together."""
    names, group = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) * folds // len(names))[group]


def expected_by_others(y: np.ndarray, z: np.ndarray, folds: np.ndarray, seed: int) -> np.ndarray:
    """`E[y | z]` `(N,)`, each fold's by a regression on all others."""
    expected = np.empty_like(y)
    for fold in np.unique(folds):
        inside = folds == fold
        expected[inside] = Regression(y[~inside], z[~inside], seed=seed)(z[inside])
    return expected


def chances_by_others(codes: np.ndarray, z: np.ndarray, labels: int, folds: np.ndarray) -> np.ndarray:
    """`P(label | z)` `(N, labels)`, each fold's by a regression on all others."""
    chances = np.empty((len(z), labels))
    for fold in np.unique(folds):
        inside = folds == fold
        chances[inside] = Chances(codes[~inside], z[~inside], labels)(z[inside])
    return chances


def _beside(z: np.ndarray, a: np.ndarray | None) -> np.ndarray:
    return z if a is None else np.concatenate([a, z], axis=1)


def _products(z: np.ndarray, a: np.ndarray | None) -> np.ndarray:
    """The attribute's columns, z, and their products: a slope for each label."""
    if a is None:
        return z
    return np.concatenate([a, z, (a[:, :, None] * z[:, None, :]).reshape(len(z), -1)], axis=1)
