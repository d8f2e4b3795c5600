"""Who is missed: sensitivity by group at one threshold, and after someone has poisoned the labels of a group.

A classifier that can't tell the group can't be made to miss it (label poisoning, scored on clean rows).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causalcxr.debias.coding import Attribute
from causalcxr.debias.probes import fit_probe
from causalcxr.metrics.auroc import youden_threshold
from causalcxr.metrics.intervals import Interval, bootstrap, percentile_interval

__all__ = ["FEW", "Case", "Opportunity", "Poisoned", "opportunity", "poisoned"]

FEW = 50  # positives of a group, below which a gap is not to be read without its interval
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Opportunity:
    """Sensitivity for one label by group, with the number of positives, and how they differ.

    `gap`: of two groups the second's less the first's, of more the largest less the smallest. `specificity`: over
    all groups, at the same threshold.
    """

    label: str
    group: str
    sensitivity: dict[str, Interval]
    gap: Interval
    specificity: float


@dataclass(frozen=True)
class Poisoned:
    """Sensitivity lost in a group whose positives are called negative, beyond what others lose, by share."""

    label: str
    group: str
    target: str
    lost: dict[float, float]


@dataclass(frozen=True)
class Case:
    """Embeddings by part, and one label and one group of all rows: `truth`, `of` `(N,)` are their numbers."""

    found: Mapping[str, np.ndarray]
    parts: Mapping[str, np.ndarray]
    patients: np.ndarray
    label: Attribute
    truth: np.ndarray
    group: Attribute
    of: np.ndarray

    @property
    def positives(self) -> list[int]:
        """The labels that are asked for: of two the rarer one, of more each."""
        counts = np.bincount(self.truth[self.parts["fit"]], minlength=len(self.label.labels))
        return [int(counts.argmin())] if len(counts) == 2 else list(range(len(counts)))

    def said(self, truth: np.ndarray) -> np.ndarray:
        """Whether a linear probe says yes to the rows of the part `score`; `truth` `(N,)`: what it is taught.

        Its threshold is the one that is best on the part for thresholds.
        """
        found, parts = self.found, self.parts
        if not truth[parts["probe"]].any():  # all positives were called negative
            return np.zeros(len(parts["score"]), dtype=bool)
        scores = fit_probe("linear", found["probe"], truth[parts["probe"]].astype(int))
        threshold = youden_threshold(scores(found["threshold"])[:, 1], truth[parts["threshold"]])
        return scores(found["score"])[:, 1] >= threshold

    def name(self, k: int) -> str:
        """Of a label."""
        return f"{self.label.name} = {self.label.labels[k]}"


def opportunity(case: Case) -> list[Opportunity]:
    """Sensitivity by group; one entry a positive label."""
    found, score = [], case.parts["score"]
    for k in case.positives:
        said, positive = case.said(case.truth == k), case.truth[score] == k
        masks = {name: positive & (case.of[score] == g) for g, name in enumerate(case.group.labels)}
        masks = {name: mask for name, mask in masks.items() if mask.any()}
        if len(masks) < 2:
            continue
        rates = lambda weights, masks=masks, said=said: np.stack(  # noqa: E731
            [_rate(weights, mask, said) for mask in masks.values()], axis=1
        )
        values, drawn = bootstrap(rates, case.patients[score])
        intervals = {
            name: percentile_interval(values[i], drawn[:, i], int(mask.sum()))
            for i, (name, mask) in enumerate(masks.items())
        }
        specificity = float((~said[case.truth[score] != k]).mean())
        gap = _gap(values, drawn, int(positive.sum()))
        found.append(Opportunity(case.name(k), case.group.name, intervals, gap, specificity))
    return found


def poisoned(case: Case) -> list[Poisoned]:
    """Positives of the group with fewest are called negative in the probe's rows; scored on clean rows."""
    curves, of, score = [], case.of, case.parts["score"]
    for k in case.positives:
        answers = case.truth == k
        target, order = _victims(case, answers)
        here, there = (answers[score] & mask for mask in (of[score] == target, of[score] != target))
        gaps = {}
        for share in SHARES:
            spoilt = answers.copy()
            spoilt[order[: round(share * len(order))]] = False
            said = case.said(spoilt)
            gaps[share] = float(said[there].mean() - said[here].mean()) if here.any() and there.any() else np.nan
        lost = {share: gap - gaps[0.0] for share, gap in gaps.items()}
        curves.append(Poisoned(case.name(k), case.group.name, case.group.labels[target], lost))
    return curves


def _victims(case: Case, answers: np.ndarray) -> tuple[int, np.ndarray]:
    """The group with fewest positives in the probe's rows, and these rows in the order that they are spoilt in."""
    probe = case.parts["probe"]
    counts = np.bincount(case.of[probe][answers[probe]], minlength=len(case.group.labels))
    target = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    rows = probe[answers[probe] & (case.of[probe] == target)]
    return target, np.random.default_rng(0).permutation(rows)


def _gap(values: np.ndarray, drawn: np.ndarray, n: int) -> Interval:
    if drawn.shape[1] == 2:
        return percentile_interval(float(values[1] - values[0]), drawn[:, 1] - drawn[:, 0], n)
    spread = np.nanmax(drawn, axis=1) - np.nanmin(drawn, axis=1)
    return percentile_interval(float(values.max() - values.min()), spread, n)


def _rate(weights: np.ndarray, mask: np.ndarray, said: np.ndarray) -> np.ndarray:
    above, below = weights[:, mask] @ said[mask], weights[:, mask].sum(axis=1)
    return np.divide(above, below, out=np.full(len(weights), np.nan), where=below > 0)
