"""Which interventions are measured and drawn: named by the user, chosen from the graph, or drawn row by row."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Graph, Variable
from causalcxr.values import Batch, parse_assignments

__all__ = ["choose_interventions", "describe", "draw_other_values", "parse_intervention", "readable"]

LABELS_SHOWN = 3
QUANTILES = (0.1, 0.9)


def parse_intervention(graph: Graph, text: str) -> dict[str, Any]:
    """`"age=80,finding=Pleural Effusion"` to `{"age": 80.0, "finding": "Pleural Effusion"}`.

    Raises GraphError: no `name=value`, or a variable or value that the graph doesn't have.
    """
    return parse_assignments(graph, re.split(r",(?=[^,=]*=)", text))


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
            low, high = np.quantile(train[name].double().numpy(), QUANTILES)
            values = {_round(x, (high - low) / 10, variable.bounds) for x in (low, high)}
            chosen += [{name: value} for value in sorted(values)]
    return chosen


def draw_other_values(graph: Graph, batch: Batch, train: Batch, seed: int) -> dict[str, Tensor]:
    """For every attribute and row a value `(B,)` to intervene with, other than the row's own.

    Discrete: uniform over the other labels. Continuous: drawn from the training marginal.
    """
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name in graph.attributes:
        own = batch[name].cpu()
        if graph[name].is_discrete:
            labels = len(graph[name].labels)
            drawn[name] = (own + torch.randint(1, labels, own.shape, generator=generator)) % labels
        else:
            drawn[name] = train[name][torch.randint(len(train[name]), own.shape, generator=generator)]
    return drawn


def describe(graph: Graph, do: Mapping[str, Any]) -> str:
    """An intervention as a person writes it: `sex = male, age = 80 years`."""
    return ", ".join(f"{name} = {readable(graph[name], value)}" for name, value in do.items())


def readable(variable: Variable, value: Any) -> str:
    """A label, or a number with about three digits and its unit."""
    if variable.is_discrete:
        return value if isinstance(value, str) else variable.labels[int(value)]
    low, high = variable.bounds
    decimals = max(0, 2 - math.floor(math.log10(high - low)))
    return f"{round(float(value), decimals):g} {variable.unit}".strip()


def _round(value: float, step: float, bounds: Sequence[float]) -> float:
    """To a multiple of 1, 2 or 5 times a power of ten that is about `step`, within the bounds."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    nice = min((1.0, 2.0, 5.0, 10.0), key=lambda factor: abs(factor * power - step)) * power
    rounded = round(round(value / nice) * nice, 10)
    return float(min(max(rounded, bounds[0]), bounds[1]))
