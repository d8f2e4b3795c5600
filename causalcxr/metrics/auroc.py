"""AUROC of weighted rows, for many resamples at once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.metrics.intervals import RESAMPLES, Interval, bootstrap, percentile_interval

__all__ = ["Task", "auroc", "auroc_interval", "make_task", "task_auroc", "task_interval", "youden_threshold"]


class Task:
    """Scores and answers of one attribute: one column per label (one-vs-rest), or a single one.

    `scores`, `answers`: `(N, K)`; the AUROC of the attribute is the mean over the K columns (macro).
    """

    def __init__(self, scores: np.ndarray, answers: np.ndarray):
        self.answers = answers
        order = np.argsort(scores, axis=0, kind="stable")
        self.order = order
        ordered = np.take_along_axis(scores, order, axis=0)
        columns = range(scores.shape[1])
        self.first = np.stack([np.searchsorted(ordered[:, k], ordered[:, k], "left") for k in columns], axis=1)
        self.after = np.stack([np.searchsorted(ordered[:, k], ordered[:, k], "right") for k in columns], axis=1)


def make_task(variable: Variable, output: Tensor, labels: Tensor, median: float) -> Task:
    """Scores of a prediction: the second label's logit, every label's probability, or the predicted number.

    A number is turned into a question with two answers: is it above `median`, that of the training split?
    """
    answer = labels.cpu().numpy()
    if not variable.is_discrete:
        return Task(output.double().cpu().numpy()[:, None], (answer > median)[:, None])
    logits = output.double().cpu()
    if len(variable.labels) == 2:
        return Task((logits[:, 1] - logits[:, 0]).numpy()[:, None], (answer == 1)[:, None])
    classes = np.arange(logits.shape[1])
    others = [logits[:, classes != k].logsumexp(dim=1) for k in classes]
    scores = (logits - torch.stack(others, dim=1)).numpy()  # log-odds: no ties where probabilities round to 1
    return Task(scores, answer[:, None] == classes)


def task_auroc(task: Task, weights: np.ndarray) -> np.ndarray:
    """The AUROC `(R,)` under weights `(R, N)` of the rows; NaN where a label has no weight."""
    columns = range(task.answers.shape[1])
    return np.mean([_column_auroc(task, k, weights) for k in columns], axis=0)


def auroc(scores: np.ndarray, answers: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The probability that a row with answer True has the higher score than one without; ties count half.

    All `(N,)`. NaN if one of the answers does not occur.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    return float(task_auroc(Task(scores[:, None], answers[:, None]), weights[None])[0])


def auroc_interval(
    scores: Any, answers: Any, patients: Any = None, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The AUROC, 0 to 1, with its 95 % bootstrap interval clustered by patient; NaN if an answer does not occur.

    `scores` `(N,)`: higher means more of it. `answers` `(N,)`: True or 1 where it is so. `patients` `(N,)`: whose
    row it is; None: every row is another patient. Arrays, lists, columns of a table and tensors are taken.
    Raises ValueError: lengths that differ, or NaN among the scores.
    """
    scores, answers = np.asarray(scores, dtype=np.float64), np.asarray(answers).astype(bool)
    patients = np.arange(len(scores)) if patients is None else np.asarray(patients)
    if not scores.shape == answers.shape == patients.shape or scores.ndim != 1:
        shapes = f"{scores.shape}, {answers.shape} and {patients.shape}"
        raise ValueError(f"expected scores, answers and patients of one length, got {shapes}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN; leave these rows out")
    task = Task(scores[:, None], answers[:, None])
    return task_interval(task, patients, resamples, seed)


def task_interval(task: Task, patients: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The AUROC of a task with its 95 % bootstrap interval clustered by patient; `patients` `(N,)`."""
    value, drawn = bootstrap(lambda weights: task_auroc(task, weights)[:, None], patients, resamples, seed)
    return percentile_interval(value[0], drawn[:, 0], len(task.answers))


def youden_threshold(scores: np.ndarray, answers: np.ndarray) -> float:
    """Above which score `(N,)` to say yes, so that sensitivity plus specificity is largest (Youden 1950).

    It is one of the scores. `answers` `(N,)`, bool, of both kinds.
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], answers[order]
    gain = np.cumsum(~positive) / (~positive).sum() - np.cumsum(positive) / positive.sum()
    gain[:-1][ordered[1:] == ordered[:-1]] = -np.inf  # equal scores are on one side
    return float(ordered[gain[:-1].argmax()])


def _column_auroc(task: Task, k: int, weights: np.ndarray) -> np.ndarray:
    positive = task.answers[task.order[:, k], k]
    ordered = weights[:, task.order[:, k]].astype(np.float64)
    negative = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(ordered * ~positive, axis=1, out=negative[:, 1:])
    below = (negative[:, task.first[positive, k]] + negative[:, task.after[positive, k]]) / 2
    of_positive = ordered[:, positive]
    pairs = of_positive.sum(axis=1) * negative[:, -1]
    won = np.einsum("rn,rn->r", of_positive, below)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
