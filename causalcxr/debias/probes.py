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
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.metrics.auroc import Task

__all__ = ["PROBES", "answers_of", "classes_of", "fit_probe", "task_of"]

ENOUGH_TO_STOP, LEAST_TO_STOP = 500, 20  # rows, and of the rarest class, from which training stops early
MOST_ROWS = 4000  # that a support vector machine learns from: its time grows with their square

PROBES: dict[str, Callable[[int, bool], Any]] = {
    "linear": lambda seed, stop: LogisticRegression(C=1.0, max_iter=500),
    "rbf": lambda seed, stop: SVC(C=1.0, gamma="scale", random_state=seed),
    "mlp": lambda seed, stop: MLPClassifier((128, 64), early_stopping=stop, max_iter=100, random_state=seed),
    "boosted": lambda seed, stop: HistGradientBoostingClassifier(
        max_iter=150 if stop else 50,
        early_stopping=stop,  # pyright: ignore
        random_state=seed,
    ),
}


def answers_of(attribute: Attribute, values: np.ndarray, median: float) -> np.ndarray:
    """The class of every row `(N,)`: the number of its label, or whether it is above the median."""
    return attribute.codes(values) if attribute.is_discrete else (values > median).astype(int)


def classes_of(attribute: Attribute) -> int:
    """How many answers there are."""
    return len(attribute.labels) or 2


def fit_probe(
    name: str, z: np.ndarray, answers: np.ndarray, classes: int = 2, seed: int = 0
) -> Callable[[np.ndarray], np.ndarray]:
    """Trained on embeddings `(N, D)` and classes `(N,)`; maps embeddings to scores `(M, classes)`.

    A probability's log-odds or a distance from the boundary: higher means more of the class; a class without rows
    has the lowest of all. Raises EmbeddingsError: fewer than two classes have rows.
    """
    known, counts = np.unique(answers, return_counts=True)
    if len(known) < 2:
        raise EmbeddingsError(f"all {len(z)} rows that a probe learns from have the same answer")
    if name == "rbf" and len(z) > MOST_ROWS:
        rows = _some(answers, seed)
        z, answers = z[rows], answers[rows]
    stop = len(z) >= ENOUGH_TO_STOP and counts.min() >= LEAST_TO_STOP
    probe = make_pipeline(StandardScaler(), PROBES[name](seed, stop))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(np.asarray(z, dtype=np.float64), answers)

    def scores(z: np.ndarray) -> np.ndarray:
        z = np.asarray(z, dtype=np.float64)
        if hasattr(probe, "decision_function"):
            found = probe.decision_function(z)
            found = np.stack([-found, found], axis=1) if found.ndim == 1 else found
        else:
            chance = probe.predict_proba(z).clip(1e-12, 1 - 1e-12)
            found = np.log(chance) - np.log1p(-chance)
        every = np.full((len(z), classes), found.min() - 1)
        every[:, known] = found
        return every

    return scores


def task_of(scores: np.ndarray, answers: np.ndarray) -> Task:
    """For the AUROC: of two classes that of the second, of more the mean over each against the others.

    Classes that no row has are left out.
    """
    if scores.shape[1] == 2:
        return Task(scores[:, 1:], answers[:, None] == 1)
    there = np.unique(answers)
    return Task(scores[:, there], answers[:, None] == there)


def _some(answers: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers at random, of every class alike but for a few of each."""
    order = np.random.default_rng(seed).permutation(len(answers))
    few = [order[answers[order] == k][:LEAST_TO_STOP] for k in np.unique(answers)]
    return np.union1d(np.concatenate(few), order[:MOST_ROWS])
