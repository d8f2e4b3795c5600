"""Simulated chest X-rays: subjects 0, 1, ... of one seed, rendered once and stored as 8 bits."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from importlib.resources import files

import numpy as np
import pandas as pd
import torch

from causalcxr import simulator
from causalcxr.data.config import DataConfig
from causalcxr.data.source import Source, Unusable
from causalcxr.graph import Graph
from causalcxr.support.errors import ConfigError, DataError, nearest
from causalcxr.values import decode

__all__ = ["simulator_source"]


def simulator_source(config: DataConfig, graph: Graph) -> Source:
    """`train + val + test` subjects, in this order; a graph with fewer attributes takes those that it names.

    `Cohort.ids` are the subjects' ids: with the seed and the knobs stored in `Cohort.source`, the simulator gives
    the same subjects again, and their exact counterfactuals.
    The table says what is recorded, and `planted` selection rejects rows.
    Raises ConfigError: unknown knob. Raises DataError: an attribute that the simulator doesn't have, colour.
    """
    knobs = _knobs(config)
    simulated = simulator.graph(knobs)
    for name in graph.attributes:
        if config.columns.get(name, name) not in simulated.attributes:
            hint = nearest(name, simulated.attributes)
            raise DataError(f"graph '{graph.name}': the simulator has no attribute '{name}'; {hint}")
    if graph.image and graph[graph.image].channels != 1:
        raise DataError(f"graph '{graph.name}': simulated images have 1 channel")

    ids = range(config.train + config.val + config.test)

    def table() -> pd.DataFrame:
        noise = simulator.noise(config.seed, ids)
        values = simulator.recorded(noise, simulator.attributes(noise, knobs=knobs), knobs)
        columns = {name: [str(v) for v in decode(simulated[name], values[name])] for name in values}
        splits = ["train"] * config.train + ["val"] * config.val + ["test"] * config.test
        paths = [f"simulator#{i}" for i in ids]
        return pd.DataFrame(
            {"path": paths, "patient_id": [f"sim-{i:07d}" for i in ids], "split": splits} | columns
        )

    def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray]]:
        with torch.no_grad():
            noise = simulator.noise(config.seed, rows)
            values = simulator.attributes(noise, knobs=knobs)
            images = [simulator.render(noise, values, size=size, knobs=knobs) for size in sizes]
            levels = [(image * 255).round().clamp(0, 255).to(torch.uint8).numpy() for image in images]
            return [list(row) for row in zip(*levels, strict=True)]

    def left_out() -> dict[int, Unusable]:
        noise = simulator.noise(config.seed, ids)
        chosen = simulator.selected(noise, simulator.attributes(noise, knobs=knobs), knobs)
        why = Unusable("not selected", "planted selection leaves this subject out")
        return {i: why for i in ids if not chosen[i]}

    counts = {"train": config.train, "val": config.val, "test": config.test}
    columns = {name: config.columns.get(name, name) for name in graph.attributes}
    laws = {"planted": dict(config.planted), "sites": dict(config.sites)}
    chosen = {**config.knobs, **{name: law for name, law in laws.items() if law}}
    about = {"source": config.source, "seed": config.seed, "knobs": chosen, "columns": columns}
    return Source("the simulator", about | counts, {"code": _code_hash()}, table, pixels, left_out)


def _knobs(config: DataConfig) -> simulator.Knobs:
    known = [field.name for field in fields(simulator.Knobs) if field.name not in ("planted", "sites")]
    for name in config.knobs:
        if name not in known:
            raise ConfigError(f"data.knobs: no knob '{name}'; {nearest(name, known)}")
    return simulator.Knobs(**config.knobs, planted=config.planted, sites=config.sites)


def _code_hash() -> str:
    """Of the simulator's own code: a cohort made by other equations is another cohort."""
    code = sorted((file for file in files(simulator).iterdir() if file.name.endswith(".py")), key=lambda f: f.name)
    return hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()
