"""What is left of an attribute after an eraser, and what was lost, on rows that nothing was fitted to.

The parts are disjoint by patient: erasers are fitted to one, fresh probes to the next, thresholds set on the
third, everything scored on the last. The target is the floor, what the labels to keep tell of the attribute all
the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from causalcxr.debias.base import Eraser
from causalcxr.debias.coding import Attribute, Coding
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.opportunity import Case, Opportunity, Poisoned, opportunity, poisoned
from causalcxr.debias.probes import PROBES, answers_of, classes_of, fit_probe, task_of
from causalcxr.debias.tables import Embedded
from causalcxr.metrics.auroc import task_auroc, task_interval
from causalcxr.metrics.intervals import Interval

__all__ = [
    "DEFINITIONS",
    "RAW",
    "Measured",
    "Subject",
    "accuracy_at_budget",
    "auroc_of",
    "check_labels",
    "floors",
    "measure",
]

RAW = "raw"
LEAST_OF = {"fit": 3, "probe": 5, "threshold": 1, "score": 3}  # rows of each label
DEFINITIONS = {
    "leak": "AUROC, on rows that nothing was fitted to, of a fresh probe that reads the attribute from the "
    "embedding; of three labels or more the mean over each against the others, of a number whether it is above "
    "its median. The strongest of four probes counts.",
    "floor": "AUROC of the attribute from the labels to keep alone: what must remain if these are kept.",
    "utility": "AUROC of a label to keep by a linear probe, on the same rows.",
    "edit": "Mean squared change of an embedding, as a share of the embeddings' variance.",
    "in sample": "Utility on the very rows that the probe was fitted to, the largest of four probes: that of "
    "noise is as high.",
    "at the budget": "Accuracy of the RBF probe where every eraser goes only as far from the raw embeddings as "
    "leace does.",
}


@dataclass(frozen=True)
class Subject:
    """The rows of a study with their parts, and how attributes become numbers (settled on the part `fit`)."""

    rows: Embedded
    parts: Mapping[str, np.ndarray]
    seed: int = 0

    @cached_property
    def erase(self) -> list[Attribute]:
        return _described(self.rows.erase, self.parts["fit"])

    @cached_property
    def keep(self) -> list[Attribute]:
        return _described(self.rows.keep, self.parts["fit"])

    def answers(self, attribute: Attribute) -> np.ndarray:
        """The class of every row."""
        values = {**self.rows.erase, **self.rows.keep}[attribute.name]
        median = 0.0 if attribute.is_discrete else float(np.median(values[self.parts["fit"]]))
        return answers_of(attribute, values, median)

    def fit(self, eraser: Eraser) -> Eraser:
        """Fit an eraser to its part."""
        at, rows = self.parts["fit"], self.rows
        keep = {name: values[at] for name, values in rows.keep.items()} or None
        erase = {name: values[at] for name, values in rows.erase.items()}
        pairs = None if rows.pairs is None else rows.pairs[at]
        return eraser.fit(rows.z[at], erase, keep, rows.patients[at], pairs)

    def transform(self, eraser: Eraser | None, part: str) -> np.ndarray:
        """The embeddings of a part; raw without an eraser."""
        at, rows = self.parts[part], self.rows
        if eraser is None:
            return np.asarray(rows.z[at])
        erase = {name: values[at] for name, values in rows.erase.items()}
        pairs = rows.pairs[at] if rows.pairs is not None and "pairs" in eraser.NEEDS else None
        return eraser.transform(rows.z[at], erase, pairs)


@dataclass(frozen=True)
class Measured:
    """One eraser: intervals by attribute and probe; `edit` is a share of the variance."""

    leak: dict[str, dict[str, Interval]]
    utility: dict[str, dict[str, Interval]]
    in_sample: dict[str, float]
    edit: float
    opportunity: list[Opportunity] = field(default_factory=list)
    poisoned: list[Poisoned] = field(default_factory=list)

    def strongest(self, name: str) -> tuple[str, Interval]:
        """The probe that tells most of an attribute, and how much."""
        return max(self.leak[name].items(), key=lambda pair: pair[1].value)


def measure(
    subject: Subject, eraser: Eraser | None, probes: Sequence[str] = tuple(PROBES), more: bool = True
) -> Measured:
    """Leak, utility and edit of an eraser that is fitted; None measures the raw embeddings.

    `more`: opportunity gaps and poisoned labels too.
    """
    found = {part: subject.transform(eraser, part) for part in ("probe", "threshold", "score")}
    leak = {a.name: _by_probe(subject, a, found, probes)[0] for a in subject.erase}
    kept = {a.name: _by_probe(subject, a, found, probes) for a in subject.keep}
    raw = subject.transform(None, "score").astype(np.float64)
    edit = ((found["score"] - raw) ** 2).sum(axis=1).mean() / raw.var(axis=0).sum()
    gaps, poison = [], []
    if more:
        pairs = [(k, a) for k in subject.keep if k.is_discrete for a in subject.erase if a.is_discrete]
        answers = {a.name: subject.answers(a) for a in (*subject.keep, *subject.erase)}
        for label, group in pairs:
            of = answers[label.name], group, answers[group.name]
            case = Case(found, subject.parts, subject.rows.patients, label, *of)
            gaps += opportunity(case)
            poison += poisoned(case)
    return Measured(
        leak,
        {name: of for name, (of, _) in kept.items()},
        {name: most for name, (_, most) in kept.items()},
        float(edit),
        gaps,
        poison,
    )


def check_labels(subject: Subject) -> None:
    """Raises EmbeddingsError: a label that too few rows of a part have to learn or score it."""
    for a in (*_described(subject.rows.erase, slice(None)), *_described(subject.rows.keep, slice(None))):
        values = {**subject.rows.erase, **subject.rows.keep}[a.name]
        if not a.is_discrete:
            middle = np.median(values[subject.parts["fit"]])
            answers, names = (values > middle).astype(int), ("at most its median", "above its median")
        else:
            answers, names = a.codes(values), a.labels
        for part, rows in subject.parts.items():
            counts = np.bincount(answers[rows], minlength=len(names))
            if counts.min() < LEAST_OF[part]:
                raise EmbeddingsError(
                    f"'{a.name}' is {names[counts.argmin()]} in {counts.min()} rows of the part '{part}', which "
                    f"needs {LEAST_OF[part]}; put rare labels together, or leave these rows out"
                )


def floors(subject: Subject) -> dict[str, Interval]:
    """What the labels to keep tell of each attribute to erase; 0.5 where nothing is to be kept."""
    if not subject.keep:
        return {a.name: Interval(0.5, 0.5, 0.5, len(subject.parts["score"])) for a in subject.erase}
    coded = Coding(subject.keep).encode(subject.rows.keep)
    found = {part: coded[subject.parts[part]] for part in ("probe", "score")}
    best = {}
    for a in subject.erase:
        of = _by_probe(subject, a, found, ("linear", "boosted"))[0]
        one = max(of.values(), key=lambda interval: interval.value)
        best[a.name] = Interval(max(0.5, one.value), max(0.5, one.low), max(0.5, one.high), one.n)
    return best


def accuracy_at_budget(
    subject: Subject, eraser: Eraser | None, budget: float, measured: Measured
) -> dict[str, float]:
    """Accuracy of fresh RBF probes where the eraser goes only part of the way, for its edit to be the budget."""
    share = min(1.0, (budget / measured.edit) ** 0.5) if measured.edit > 0 else 1.0
    found = {}
    for part in ("probe", "score"):
        raw = subject.transform(None, part)
        found[part] = raw + share * (subject.transform(eraser, part) - raw)
    accuracies = {}
    for a in subject.erase:
        answers = subject.answers(a)
        learned = answers[subject.parts["probe"]]
        scores = fit_probe("rbf", found["probe"], learned, classes_of(a), subject.seed)
        said = scores(found["score"]).argmax(axis=1)
        accuracies[a.name] = float((said == answers[subject.parts["score"]]).mean())
    return accuracies


def _by_probe(
    subject: Subject, attribute: Attribute, found: Mapping[str, np.ndarray], probes: Sequence[str]
) -> tuple[dict[str, Interval], float]:
    """AUROC by probe on the part `score`, and the largest on the part `probe`, which they were fitted to."""
    answers, parts, patients = subject.answers(attribute), subject.parts, subject.rows.patients
    intervals, in_sample = {}, 0.0
    for name in probes:
        scores = fit_probe(name, found["probe"], answers[parts["probe"]], classes_of(attribute), subject.seed)
        intervals[name] = auroc_of(scores(found["score"]), answers[parts["score"]], patients[parts["score"]])
        seen = task_of(scores(found["probe"]), answers[parts["probe"]])
        in_sample = max(in_sample, float(task_auroc(seen, np.ones((1, len(seen.answers))))[0]))
    return intervals, in_sample


def auroc_of(scores: np.ndarray, answers: np.ndarray, patients: np.ndarray) -> Interval:
    """With its 95 % interval over patients."""
    return task_interval(task_of(scores, answers), patients)


def _described(columns: Mapping[str, np.ndarray], rows: Any) -> list[Attribute]:
    return Coding.fit({name: values[rows] for name, values in columns.items()}).attributes if columns else []
