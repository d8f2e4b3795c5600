"""A small world with known equations of which the graph is known, and cohorts drawn from it.

    race --> finding <-- age --> dose --> stay <-- sex

A fork at age, colliders at finding and stay, and a chain from age to stay; kinds of every sort.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.data.cohort import Cohort
from causalcxr.graph import Graph, graph_from_dict

VARIABLES: dict[str, dict[str, Any]] = {
    "sex": {"kind": "binary", "labels": ["female", "male"]},
    "race": {"kind": "categorical", "labels": ["white", "asian", "black"]},
    "age": {"kind": "continuous", "range": [18, 100], "unit": "years"},
    "finding": {"kind": "binary", "labels": ["no", "yes"], "parents": ["race", "age"]},
    "dose": {"kind": "continuous", "range": [-10, 20], "parents": ["age"]},
    "stay": {"kind": "continuous", "range": [-40, 80], "parents": ["sex", "dose"]},
}
EDGES = [(parent, name) for name, variable in VARIABLES.items() for parent in variable.get("parents", [])]


def world(*without: tuple[str, str]) -> Graph:
    """The graph of the world, or what is left of it without some edges `(parent, child)`."""
    variables = {name: dict(variable) for name, variable in VARIABLES.items()}
    for parent, child in without:
        variables[child]["parents"] = [name for name in variables[child]["parents"] if name != parent]
    return graph_from_dict({"name": "world", "variables": variables})


def draw(n: int, seed: int) -> dict[str, np.ndarray]:
    """n rows. The dependences are bent, and the spread of a number depends on its parents."""
    random = np.random.default_rng(seed)
    sex, race = random.integers(2, size=n), random.choice(3, size=n, p=[0.6, 0.3, 0.1])
    age = 20 + 70 * random.beta(2.5, 2, size=n)
    decades = (age - 60) / 10
    logit = -0.5 + 0.4 * decades + 0.15 * decades**2 + np.array([0.0, 0.8, -1.0])[race]
    finding = (random.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    dose = 2 + 2 * np.sin(decades) + (0.4 + 0.1 * np.abs(decades)) * random.normal(size=n)
    stay = 3 + 0.4 * (dose - 2) ** 2 + 1.5 * sex * (dose - 2) + random.gamma(2, size=n)
    return {"sex": sex, "race": race, "age": age, "finding": finding, "dose": dose, "stay": stay}


def cohort_of(graph: Graph, values: dict[str, np.ndarray], patients: np.ndarray | None = None) -> Cohort:
    """Rows as a cohort: 60 % train, 10 % val, 30 % test, a patient each unless `patients` says whose they are."""
    n = len(next(iter(values.values())))
    table = pd.DataFrame({"row": np.arange(n), "path": ""})
    table["patient_id"] = [str(p) for p in (np.arange(n) if patients is None else patients)]
    table["split"] = np.repeat(["train", "val", "test"], [n - n // 10 - 3 * n // 10, n // 10, 3 * n // 10])
    for name in graph.attributes:
        labels = np.array(graph[name].labels)
        table[name] = labels[values[name]] if graph[name].is_discrete else values[name].astype(np.float32)
    return Cohort(graph, 0, Path(), table, {}, "", {}, None)
