"""From what a collection says of each image's findings to the one label that the graph has for it.

The graph's labels, or `data.labels`, name the findings that count. An image with one of them is kept, whatever
else it shows; one with none of them shows another finding, and is rejected unless `data.other` gives it a label.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from causalcxr.data.collection import attribute_read_from
from causalcxr.data.config import DataConfig
from causalcxr.data.source import Unusable
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError, nearest

__all__ = [
    "CHEXPERT_FINDINGS",
    "Mentions",
    "Statements",
    "label_findings",
    "lists",
    "marks",
    "one_mark_a_study",
    "prevalence",
    "replaced",
]

CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
NEGATIVE, POSITIVE, UNCERTAIN, ODD = range(4)
MARKS = {"": NEGATIVE, "0": NEGATIVE, "0.0": NEGATIVE, "1": POSITIVE, "1.0": POSITIVE}  # blank: not mentioned
MARKS |= {"-1": UNCERTAIN, "-1.0": UNCERTAIN}
RANKS, RANKED = (NEGATIVE, UNCERTAIN, POSITIVE), ("0", "-1", "1")  # from no to yes
OTHER = "other finding"


class Mentions(NamedTuple):
    """What is said of one image."""

    positive: frozenset[str]
    uncertain: frozenset[str] = frozenset()


class Statements(NamedTuple):
    """What is said of each image: `distinct[which[i]]`; images are many, and what is said of them is not."""

    which: np.ndarray  # int64 (N,)
    distinct: Sequence[Mentions]


def marks(columns: Mapping[str, pd.Series], where: str) -> Statements:
    """One column a finding: 1 positive, 0 negative, -1 uncertain, blank not mentioned (CheXpert, NegBio).

    Raises DataError: any other mark.
    """
    key = np.zeros(len(next(iter(columns.values()))), dtype=np.int64)  # base ODD, the first finding at the end
    for place, (finding, cells) in enumerate(columns.items()):
        which, distinct = pd.factorize(cells)
        read = np.array([MARKS.get(cell, ODD) for cell in distinct], dtype=np.int64)
        if ODD in read:
            odd = distinct[read.tolist().index(ODD)]
            raise DataError(f"{where}: '{odd}' in column '{finding}'; expected 1, 0, -1 or nothing")
        key += read[which] * ODD**place
    keys, which = np.unique(key, return_inverse=True)
    said = [{finding: key // ODD**place % ODD for place, finding in enumerate(columns)} for key in keys.tolist()]
    return Statements(which, [Mentions(_marked(marks, POSITIVE), _marked(marks, UNCERTAIN)) for marks in said])


def one_mark_a_study(
    columns: Mapping[str, pd.Series], studies: pd.Series, how: str
) -> tuple[dict[str, pd.Series], int]:
    """The marks of all films of a study made one, as `marks` takes them, and how many studies had several.

    `any`: positive if one film is, else uncertain if one is. `all`: positive if all are, negative if one is.
    `first`: those of the study's first film. Marks that aren't any are left for `marks` to refuse.
    """
    group, names = pd.factorize(studies)
    differing = np.zeros(len(names), dtype=bool)
    agreed = {}
    for finding, cells in columns.items():
        if not cells.isin(list(MARKS)).all():
            agreed[finding] = cells
            continue
        ranks = cells.map({cell: RANKS.index(mark) for cell, mark in MARKS.items()}).to_numpy(dtype=np.int64)
        least, most = np.full(len(names), len(RANKS)), np.zeros(len(names), dtype=np.int64)
        np.minimum.at(least, group, ranks)
        np.maximum.at(most, group, ranks)
        differing |= least != most
        first = ranks[np.unique(group, return_index=True)[1]]
        chosen = {"any": most, "all": least, "first": first}[how][group]
        agreed[finding] = pd.Series(np.array(RANKED)[chosen], dtype=str)
    return agreed, int(differing.sum())


def replaced(statements: Statements, rows: np.ndarray, better: Statements, better_rows: np.ndarray) -> Statements:
    """What is said of each image: `better` where it has a row (not -1), else the other."""
    which = np.where(better_rows < 0, statements.which[rows], better.which[better_rows] + len(statements.distinct))
    return Statements(which, [*statements.distinct, *better.distinct])


def prevalence(statements: Statements) -> dict[str, str]:
    """The share of the images of which each finding is said, the most frequent first."""
    counts = np.bincount(statements.which, minlength=len(statements.distinct))
    found = Counter()
    for mentions, count in zip(statements.distinct, counts.tolist(), strict=True):
        found.update(dict.fromkeys(mentions.positive, count))
    total = max(1, len(statements.which))
    return {finding: f"{100 * count / total:.1f} %" for finding, count in found.most_common() if count}


def lists(cells: pd.Series, names: dict[str, str]) -> Statements:
    """One cell with all findings: `Effusion|Mass` or `['pleural effusion', 'mass']`; `names` maps some to ours."""
    which, distinct = pd.factorize(cells)
    said = [frozenset(names.get(name, name) for name in _members(cell)) for cell in distinct]
    return Statements(which, [Mentions(positive) for positive in said])


def label_findings(
    unusable: dict[int, Unusable],
    statements: Statements,
    known: Collection[str],
    config: DataConfig,
    graph: Graph,
    where: str,
) -> pd.Series:
    """The finding that counts for each image; images without one are rejected. Blank if the graph has no finding.

    Raises DataError: a finding is meant to count that the collection doesn't have.
    """
    attribute = attribute_read_from("finding", config, graph)
    if attribute is None:
        return pd.Series("", index=range(len(statements.which)), dtype=str)
    other = config.other.get(attribute.name)
    counting = dict(
        config.labels.get(attribute.name) or {label: label for label in attribute.labels if label != other}
    )
    for finding in counting:
        if finding not in known:
            hint = nearest(finding, known)
            raise DataError(f"{where} has no finding '{finding}'; {hint} (data.labels.{attribute.name})")
    judged = [_judge(mentions, counting, config.uncertain, bool(other)) for mentions in statements.distinct]
    for row, which in enumerate(statements.which.tolist()):
        if isinstance(verdict := judged[which], Unusable):
            unusable.setdefault(row, verdict)
    texts = np.array([verdict if isinstance(verdict, str) else "" for verdict in judged], dtype=object)
    return pd.Series(texts[statements.which], dtype=str)


def _judge(mentions: Mentions, counting: dict[str, str], uncertain: str, keep_other: bool) -> str | Unusable:
    """The finding that counts. An uncertain one matters only where it could change the label."""
    certain = mentions.positive & counting.keys()
    possible = certain | (mentions.uncertain & counting.keys())
    if uncertain == "positive":
        certain = possible
    elif uncertain == "reject" and _labels(certain, counting) != _labels(possible, counting):
        return Unusable("uncertain finding", f"finding: uncertain {_listed(possible - certain)}")
    if len(labels := _labels(certain, counting)) > 1:
        return Unusable("ambiguous", f"finding: {_listed(certain)} have the labels {_listed(labels)}")
    if certain:
        return min(certain)
    if keep_other:
        return OTHER
    return Unusable(OTHER, f"finding: {_listed(mentions.positive) or 'nothing'} is positive, none of which counts")


def _marked(marks: dict[str, int], kind: int) -> frozenset[str]:
    return frozenset(finding for finding, mark in marks.items() if mark == kind)


def _labels(findings: Collection[str], counting: dict[str, str]) -> set[str]:
    return {counting[finding] for finding in findings}


def _listed(names: Collection[str]) -> str:
    return "|".join(sorted(names))


def _members(cell: str) -> list[str]:
    if cell.startswith("["):
        quoted = re.findall(r"""'([^']*)'|"([^"]*)\"""", cell)
        members = [single or double for single, double in quoted]
    else:
        members = cell.split("|")
    return [member.strip() for member in members if member.strip()]
