"""Probes: fresh classifiers that try to tell an attribute from embeddings. Erasing against one is not erasing.

All are scikit-learn's: `linear` (logistic regression), `rbf` (support vector machine), `mlp`, and `boosted`
trees. A number is asked for as whether it is above its median.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from causalcxr.debias.coding import Attribute
from causalcxr.metrics.auroc import Task

__all__ = ["PROBES", "answers_of", "fit_probe", "task_of"]

MOST_ROWS = 4000  # that a support vector machine learns from: its time grows with their square

PROBES: dict[str, Callable[[int], Any]] = {
    "linear": lambda seed: LogisticRegression(C=1.0, max_iter=500),
    "rbf": lambda seed: SVC(C=1.0, gamma="scale", random_state=seed, break_ties=False),
    "mlp": lambda seed: MLPClassifier((128, 64), early_stopping=True, max_iter=100, random_state=seed),
    "boosted": lambda seed: HistGradientBoostingClassifier(
        max_iter=150,
        early_stopping=True,  # pyright: ignore
        random_state=seed,
    ),
}


def answers_of(attribute: Attribute, values: np.ndarray, median: float) -> np.ndarray:
    """The class of every row `(N,)`: the number of its label, or whether it is above the median."""
    return attribute.codes(values) if attribute.is_discrete else (values > median).astype(int)


def fit_probe(name: str, z: np.ndarray, answers: np.ndarray, seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Trained on embeddings `(N, D)` and classes `(N,)`; maps embeddings to scores `(M, classes)`, one for two.

    A probability's log-odds or a distance from the boundary: higher means more of the class.
    """
    if name == "rbf" and len(z) > MOST_ROWS:
        rows = np.random.default_rng(seed).permutation(len(z))[:MOST_ROWS]
        z, answers = z[rows], answers[rows]
    probe = make_pipeline(StandardScaler(), PROBES[name](seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(z, answers)

    def scores(z: np.ndarray) -> np.ndarray:
        if hasattr(probe, "decision_function"):
            found = probe.decision_function(z)
        else:
            chance = np.log(probe.predict_proba(z).clip(1e-12, 1))
            found = chance[:, 1] - chance[:, 0] if chance.shape[1] == 2 else chance
        return found[:, None] if found.ndim == 1 else found

    return scores


def task_of(scores: np.ndarray, answers: np.ndarray) -> Task:
    """For the AUROC: of two classes that of the second, of more the mean over each against the others."""
    if scores.shape[1] == 1:
        return Task(scores, answers[:, None] == 1)
    return Task(scores, answers[:, None] == np.arange(scores.shape[1]))
