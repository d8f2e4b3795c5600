"""Interventions: written by a person, chosen from the graph, or drawn row by row."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Graph, Variable
from causalcxr.randomness import Draws
from causalcxr.values import Batch, encode_intervention, parse_assignments

__all__ = [
    "Intervened",
    "choose_interventions",
    "draw_one_each",
    "draw_other_values",
    "draw_values",
    "low_and_high",
    "parse_intervention",
]

LABELS_SHOWN = 3
QUANTILES = (0.1, 0.9)


def parse_intervention(graph: Graph, text: str) -> dict[str, Any]:
    """`"age=80,finding=Pleural Effusion"` to `{"age": 80.0, "finding": "Pleural Effusion"}`.

    Raises GraphError: no `name=value`, or a variable or value that the graph doesn't have.
    """
    parsed = parse_assignments(graph, re.split(r",(?=[^,=]*=)", text))
    encode_intervention(graph, parsed, 1)  # an impossible value is refused here, before anything is measured
    return parsed


def choose_interventions(graph: Graph, train: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Up to three labels of every discrete attribute, and a low and a high value of every continuous one.

    These are the 10 % and the 90 % quantile of the training split, rounded to a number that reads well.
    """
    chosen: list[dict[str, Any]] = []
    for name in graph.attributes:
        variable = graph[name]
        if variable.is_discrete:
            spread = np.linspace(0, len(variable.labels) - 1, min(LABELS_SHOWN, len(variable.labels)))
            chosen += [{name: variable.labels[round(index)]} for index in spread]
        else:
            chosen += [{name: value} for value in dict.fromkeys(low_and_high(variable, train[name]))]
    return chosen


def low_and_high(variable: Variable, values: Tensor) -> tuple[float, float]:
    """The 10 % and the 90 % quantile of numbers `(N,)`, rounded to what reads well."""
    low, high = np.quantile(values.double().numpy(), QUANTILES)
    step = (high - low) / 10
    return _round(low, step, variable.bounds), _round(high, step, variable.bounds)


def draw_values(train: Batch, names: Sequence[str], n: int, draws: Draws) -> dict[str, Tensor]:
    """Values `(n,)` of each name, drawn from its training marginal, independently of one another."""
    return {name: train[name][draws.integers(len(train[name]), n)] for name in names}


def draw_other_values(graph: Graph, own: Batch, train: Batch, seed: int) -> dict[str, Tensor]:
    """For every attribute and row a value `(B,)` to intervene with, other than the row's own.

    Discrete: uniform over the other labels. Continuous: drawn from the training marginal.
    """
    draws, drawn = Draws(seed), {}
    for name in graph.attributes:
        value, labels = own[name].cpu(), len(graph[name].labels)
        if graph[name].is_discrete:
            drawn[name] = (value + 1 + draws.integers(labels - 1, len(value))) % labels
        else:
            drawn |= draw_values(train, [name], len(value), draws)
    return drawn


def draw_one_each(
    names: Sequence[str], train: Batch, n: int, draws: Draws
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One attribute a row, uniform over `names`: values `(n,)` from the training marginal, and where each is set.

    The second is bool `(n,)` by name.
    """
    chosen, row = draws.integers(len(names), n), draws.integers(len(train[names[0]]), n)
    return {name: train[name][row] for name in names}, {name: chosen == i for i, name in enumerate(names)}


@dataclass(frozen=True)
class Intervened:
    """The attributes before and after, and where each was set or followed one that was.

    `intervened`, `reached`: bool `(B,)` by attribute; absent where none is.
    """

    factual: Batch
    counterfactual: Batch
    intervened: Mapping[str, Tensor]
    reached: Mapping[str, Tensor]

    def sets(self, name: str) -> Tensor:
        """Where `(B,)` it sets an attribute."""
        return self.intervened.get(name, torch.zeros_like(self.factual[name], dtype=torch.bool))

    def moves(self, name: str) -> Tensor:
        """Where `(B,)` it sets an attribute or one of the attribute's causes."""
        set_ = self.sets(name)
        return set_ | self.reached[name] if name in self.reached else set_


def _round(value: float, step: float, bounds: Sequence[float]) -> float:
    """To a multiple of 1, 2 or 5 times a power of ten that is about `step`, within the bounds."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    nice = min((1.0, 2.0, 5.0, 10.0), key=lambda factor: abs(factor * power - step)) * power
    rounded = round(round(value / nice) * nice, 10)
    return float(min(max(rounded, bounds[0]), bounds[1]))
