"""What a person should know of a cohort before training on it, in a line each."""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise

import numpy as np

from causalcxr.data.summary import BySplit, label_counts
from causalcxr.data.table import SPLITS
from causalcxr.graph import Graph, Variable

__all__ = ["balance", "find_concerns", "find_gaps"]

RARE = 0.05  # share of the rows below which a label is rare
CONSTANT = 0.99  # share of the rows from which one value makes an attribute almost constant
NARROW = 0.01  # standard deviation as a share of the graph's range, below which an attribute is almost constant
FEW = 50  # patients, below which a split says little
REJECTED = 0.5  # share of the rows read
DIFFERENT = 0.1  # distance of two splits' laws, in shares of the rows
NEXT_TO_NOBODY = 5  # patients of train, below which a combination of attributes can't be learned from
BANDS = 3  # of a number that isn't in years: thirds of the rows
MOST_CELLS = 100_000  # combinations that are counted
WORST = 3  # combinations that are named
FALSE_ALARM = 0.001  # at most, for each attribute and pair of splits, were their patients drawn from one law


def find_concerns(graph: Graph, parts: BySplit, rejected: Mapping[str, int]) -> list[str]:
    """Warnings of one line; none if all is well. `rejected` counts the rejected rows by reason."""
    concerns = [*_rejections(len(parts), rejected), *_patients(parts)]
    for name in graph.attributes:
        constant = list(_constant(graph[name], parts))
        concerns += constant or [*_rare(graph[name], parts), *_different(graph[name], parts)]
    return concerns


def find_gaps(graph: Graph, parts: BySplit) -> list[str]:
    """Positivity: a line with the combinations of attributes that next to nobody of train has; none if all occur.

    Ages count by decade, other numbers by third. The worst are those that the attributes by themselves would make
    the most frequent.
    """
    people = parts.patients["train"]
    if len(graph.attributes) < 2 or not len(people):
        return []
    bands = {name: _bands(graph[name], parts[name]["train"]) for name in graph.attributes}
    shape = [len(labels) for labels, _ in bands.values()]
    if (cells := math.prod(shape)) > MOST_CELLS:
        return [
            f"{cells:.3g} combinations of {', '.join(bands)} can't all have people in train; "
            "what a model says of most of them is extrapolated"
        ]
    cell = np.ravel_multi_index([where for _, where in bands.values()], shape)
    counts = np.bincount(np.unique(np.stack([cell, people], axis=1), axis=0)[:, 0], minlength=math.prod(shape))
    expected = np.ones(shape)
    for axis, (labels, where) in enumerate(bands.values()):
        share = np.bincount(where, minlength=len(labels)) / len(where)
        expected *= share.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    thin = np.flatnonzero(counts < NEXT_TO_NOBODY)
    if not len(thin):
        return []
    worst = sorted(thin.tolist(), key=lambda i: (-expected.flat[i] / (1 + counts[i]), i))[:WORST]
    named = "; ".join(f"{_combination(bands, shape, i)} ({_count(int(counts[i]))})" for i in worst)
    empty = int((counts == 0).sum())
    without = f"{empty:,} {'has' if empty == 1 else 'have'} none"
    return [
        f"{len(thin):,} of {len(counts):,} combinations of {', '.join(bands)} have fewer than {NEXT_TO_NOBODY} "
        f"patients in train ({without}); what a model says there is extrapolated. Worst: {named}"
    ]


def _bands(variable: Variable, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of the bands of an attribute, and the band of each row: its labels, decades, or thirds."""
    if variable.is_discrete:
        labels = list(variable.labels)
        codes = (values[:, None] == np.array(labels)).argmax(axis=1)
        return [f"{variable.name} {label}" for label in labels], codes
    if variable.unit == "years":
        edges = 10 * np.arange(math.floor(values.min() / 10), math.floor(values.max() / 10) + 2)
        names = [f"{variable.name} {low:g} to {low + 9:g}" for low in edges[:-1]]
    else:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BANDS + 1)))
        names = [f"{variable.name} {low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    names = names or [variable.name]
    return names, np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(names) - 1)


def _combination(bands: Mapping[str, tuple[list[str], np.ndarray]], shape: list[int], cell: int) -> str:
    places = np.unravel_index(cell, shape)
    return ", ".join(names[int(place)] for (names, _), place in zip(bands.values(), places, strict=True))


def _count(people: int) -> str:
    return "nobody" if people == 0 else f"{people} patient{'' if people == 1 else 's'}"


def balance(graph: Graph, parts: BySplit) -> dict[str, bool]:
    """Of each attribute, whether its laws in train, val and test are alike, as far as their patients tell."""
    return {name: not any(_different(graph[name], parts)) for name in graph.attributes}


def _rejections(kept: int, rejected: Mapping[str, int]) -> Iterator[str]:
    n = sum(rejected.values())
    if n > REJECTED * (kept + n):
        reason, most = max(rejected.items(), key=lambda item: item[1])
        share = _percent(n / (kept + n))
        yield f"{share} of the rows read are rejected, most as '{reason}' ({most:,}); rejected.csv lists them"


def _patients(parts: BySplit) -> Iterator[str]:
    people = {split: np.unique(parts.patients[split]) for split in SPLITS}
    _, splits = np.unique(np.concatenate(list(people.values())), return_counts=True)
    if n := int((splits > 1).sum()):
        yield f"{n:,} {'patient is' if n == 1 else 'patients are'} in two splits: some test rows are no new people"
    for split, of_split in people.items():
        if (few := len(of_split)) < FEW:
            yield f"{split} has few patients ({few:,}): what is measured on it has wide intervals"


def _constant(variable: Variable, parts: BySplit) -> Iterator[str]:
    found = parts[variable.name]["all"]
    values, counts = np.unique(found, return_counts=True)
    most = counts.argmax()
    if counts[most] >= CONSTANT * len(found):
        text = f"'{values[most]}'" if variable.is_discrete else f"{values[most]:g} {variable.unit}".strip()
        share = _percent(counts[most] / len(found))
        yield f"{variable.name} is almost constant: {share} of the rows are {text}"
    elif not variable.is_discrete and found.std() < NARROW * (variable.bounds[1] - variable.bounds[0]):
        low, high = variable.bounds
        yield (
            f"{variable.name} is almost constant: its standard deviation is {found.std():.2g}, "
            f"the graph's range {low:g} to {high:g} {variable.unit}".strip()
        )


def _rare(variable: Variable, parts: BySplit) -> Iterator[str]:
    if not variable.is_discrete:
        return
    for label, counts in label_counts(variable, parts).items():
        n, share = counts["all"], counts["all"] / len(parts)
        absent = [split for split in SPLITS if counts[split] == 0]
        if n == 0:
            yield f"{variable.name} is never '{label}': nothing can be learned of it; leave it out of the graph"
        elif absent:
            yield f"{variable.name} is never '{label}' in {' and '.join(absent)} ({n:,} rows in all)"
        elif share < RARE:
            yield f"{variable.name} is imbalanced: {_percent(share)} of the rows ({n:,}) are '{label}'"


def _different(variable: Variable, parts: BySplit) -> Iterator[str]:
    values = parts[variable.name]
    patients = {split: patients for split, (_, patients) in parts.sizes.items()}
    for first, second in combinations(SPLITS, 2):
        apart = _labels_apart if variable.is_discrete else _numbers_apart
        distance, how = apart(variable, values[first], values[second])
        if distance > max(DIFFERENT, _chance(variable, patients[first], patients[second])):
            yield f"{variable.name} differs between {first} and {second}: {how}"


def _labels_apart(variable: Variable, first: np.ndarray, second: np.ndarray) -> tuple[float, str]:
    """Total variation distance, and the label that differs most."""
    shares = {label: ((first == label).mean(), (second == label).mean()) for label in variable.labels}
    label = max(shares, key=lambda label: abs(shares[label][0] - shares[label][1]))
    one, other = (_percent(share) for share in shares[label])
    how = f"'{label}' is {one} of the rows of the one, {other} of the other"
    return float(sum(abs(a - b) for a, b in shares.values()) / 2), how


def _numbers_apart(variable: Variable, first: np.ndarray, second: np.ndarray) -> tuple[float, str]:
    """Kolmogorov-Smirnov distance, and both medians."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (first, second)]
    distance = float(np.abs(below[0] - below[1]).max())
    how = f"the medians are {np.median(first):.4g} and {np.median(second):.4g} {variable.unit}".strip()
    return distance, f"{how}, the cumulative shares up to {_percent(distance)} apart"


def _chance(variable: Variable, n: int, m: int) -> float:
    """The distance that at most FALSE_ALARM of two samples of one law exceed (Hoeffding; Smirnov for numbers).

    Counted in patients, since rows of one patient are alike.
    """
    events = max(1, 2 ** (len(variable.labels) - 1) - 1)  # sets of labels whose shares can differ
    return math.sqrt(math.log(2 * events / FALSE_ALARM) / 2 * (1 / n + 1 / m))


def _percent(share: float) -> str:
    text = f"{100 * share:.3g} %"
    return "over 99.9 %" if share < 1 and text == "100 %" else text
