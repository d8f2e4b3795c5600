"""The attribute part of the model by itself: draws without an image, with and without an intervention."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from causalcxr.graph import Graph
from causalcxr.values import describe

__all__ = ["INTERVENTIONAL_DEFINITION", "interventional_means"]

INTERVENTIONAL_DEFINITION = (
    "{statistic} of '{name}' in the population described by do({do}): mean over draws from {who}. The interval is "
    "that of the draws (no training or sampling uncertainty of the model)."
)


def interventional_means(
    graph: Graph,
    do: Mapping[str, Any],
    interventions: Sequence[Mapping[str, Any]],
    values: Mapping[str, Tensor],
    who: str,
) -> dict[tuple[str, ...], Tensor]:
    """What to average, `(n,)` each, of draws under `do`: the descendants that any of `interventions` can move.

    A number itself; of a binary variable whether it has its second label, of a categorical one each label.
    """
    reached = graph.descendants(*do) if do else {name for one in interventions for name in graph.descendants(*one)}
    where = describe(graph, do) if do else "nothing"
    found: dict[tuple[str, ...], Tensor] = {}
    for name in graph.attributes:
        if name not in reached or name in do:
            continue
        labels = graph[name].labels
        if not labels:
            found["interventional", where, name, "mean", who] = values[name].cpu()
        for i, label in enumerate(labels):
            if i > 0 or len(labels) > 2:
                is_label = (values[name] == i).double().cpu()
                found["interventional", where, name, f"P({label})", who] = is_label
    return found
