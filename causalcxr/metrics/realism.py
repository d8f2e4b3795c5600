"""Realism: the Frechet distance between two populations of images in the evaluator's feature space."""

import numpy as np

from causalcxr.metrics.amplification import Trial
from causalcxr.metrics.intervals import Interval, absolute_interval, bootstrap

__all__ = ["frechet_distance", "realism"]

RESAMPLES = 100  # each takes two eigenvalue problems


def frechet_distance(
    one: np.ndarray, other: np.ndarray, weights: np.ndarray | None = None, of_other: np.ndarray | None = None
) -> float:
    """`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` of features `(N, F)` and `(M, F)` with weights of their rows.

    Source: Dowson and Landau 1982; Heusel et al. 2017 for images.
    """
    (m1, c1), (m2, c2) = _moments(one, weights), _moments(other, of_other)
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return float(np.square(m1 - m2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def realism(trial: Trial, patients: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """The distance of an intervention's counterfactuals from its reference."""
    made, right = trial.counterfactual, trial.reference
    one, other = (p.features.double().cpu().numpy() for p in (made, right))
    base = np.ones(len(other)) if right.weights is None else right.weights

    def statistics(weights: np.ndarray) -> np.ndarray:
        return np.array([[frechet_distance(one, other, w, w * base)] for w in weights])

    value, drawn = bootstrap(statistics, patients, resamples)
    return absolute_interval(float(value[0]), drawn[:, 0], len(patients))


def _moments(features: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    weights = np.ones(len(features)) if weights is None else weights
    share = weights / weights.sum()
    mean = share @ features
    centred = (features - mean) * np.sqrt(share)[:, None]
    return mean, centred.T @ centred
