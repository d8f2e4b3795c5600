"""What stands under a picture: the attributes of its row in words."""

from collections.abc import Mapping
from typing import Any

from causalcxr.graph import Graph, Variable
from causalcxr.metrics.interventions import readable

__all__ = ["caption"]


def caption(graph: Graph, batch: Mapping[str, Any], row: int) -> list[str]:
    """The attributes of one row in words, one line each; numbers get their name, but no unit (it is too wide)."""
    return [_line(graph[name], batch[name][row]) for name in graph.attributes]


def _line(variable: Variable, value: Any) -> str:
    text = readable(variable, value)
    if variable.is_discrete:
        return f"{variable.name} {text}" if text.isdigit() else text
    return f"{variable.name} {text.removesuffix(variable.unit).strip()}"
