"""The simulator behind a simulated cohort: the same subjects again, and their exact counterfactuals."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from causalcxr import simulator
from causalcxr.data.cohort import Cohort
from causalcxr.graph import Graph

__all__ = ["Truth", "find_truth"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """Exact answers for subjects by id. `columns` maps names of the graph to the simulator's."""

    graph: Graph
    seed: int
    size: int
    knobs: simulator.Knobs
    columns: Mapping[str, str]
    _of_batch: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)
    _noise: dict[Any, dict[str, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    @torch.no_grad()
    def images(self, ids: Any, do: Mapping[str, Any] | None = None, effect: str = "direct") -> Tensor:
        """Images `(B, 1, size, size)` in [0, 1], not rounded, of the subjects had `do` been so."""
        subjects = _as_subjects(ids)
        if subjects not in self._noise:  # several models ask the same of one batch
            self._of_batch.clear()
            self._noise.clear()
            self._noise[subjects] = simulator.noise(self.seed, ids)
        key = (effect, *((name, _as_key(value)) for name, value in (do or {}).items()))
        if key not in self._of_batch:
            noise = self._noise[subjects]
            self._of_batch[key] = simulator.counterfactual(noise, self._renamed(do), self.size, effect, self.knobs)
        return self._of_batch[key]

    @torch.no_grad()
    def attributes(self, ids: Any, do: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The attributes `(B,)` of the subjects had `do` been so, descendants following."""
        known = self._noise.get(_as_subjects(ids)) if self._noise else None
        noise = simulator.noise(self.seed, ids) if known is None else known
        values = simulator.attributes(noise, self._renamed(do), self.knobs)
        return {name: values[self.columns[name]] for name in self.graph.attributes}

    def _renamed(self, do: Mapping[str, Any] | None) -> dict[str, Any]:
        return {self.columns[name]: value for name, value in (do or {}).items()}


def _as_subjects(ids: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in ids)


def _as_key(value: Any) -> Any:
    return tuple(value.tolist()) if isinstance(value, Tensor) else value


def find_truth(cohort: Cohort) -> Truth | None:
    """The truth behind a cohort; None unless it is simulated, with the simulator's own labels."""
    if cohort.source.get("source") != "simulator":
        return None
    knobs, graph = simulator.Knobs(**cohort.source["knobs"]), cohort.graph
    columns = {name: cohort.source["columns"][name] for name in graph.attributes}
    simulated = simulator.graph(knobs)
    if any(graph[name].labels != simulated[column].labels for name, column in columns.items()):
        log.info("no exact metrics: the labels of graph '%s' are not the simulator's", graph.name)
        return None
    return Truth(graph, cohort.source["seed"], cohort.size, knobs, columns)
