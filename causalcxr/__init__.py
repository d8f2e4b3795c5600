"""Deep structural causal models of chest X-rays: observational, interventional and counterfactual queries.

>>> import causalcxr
>>> scm = causalcxr.load("runs/demo")
>>> older = scm.counterfactual(batch, do={"age": 80})

Names are imported when they are first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalcxr import audit, mechanisms, metrics, predictors, simulator
    from causalcxr.answers import Answer, answer
    from causalcxr.graph import Graph, Variable, graph_from_dict, load_graph
    from causalcxr.runs import load
    from causalcxr.scm import Abduction, StructuralCausalModel
    from causalcxr.support.errors import CausalCXRError

__all__ = [
    "Abduction",
    "Answer",
    "CausalCXRError",
    "Graph",
    "StructuralCausalModel",
    "Variable",
    "answer",
    "audit",
    "graph_from_dict",
    "load",
    "load_graph",
    "mechanisms",
    "metrics",
    "predictors",
    "simulator",
]

_HOMES = {
    "answers": ("Answer", "answer"),
    "graph": ("Graph", "Variable", "graph_from_dict", "load_graph"),
    "runs": ("load",),
    "scm": ("Abduction", "StructuralCausalModel"),
    "support.errors": ("CausalCXRError",),
}

try:
    __version__ = version("causalcxr")
except PackageNotFoundError:  # a copy of the folder that was never installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"causalcxr.{home}"), name)
    if name in __all__:
        return import_module(f"causalcxr.{name}")
    raise AttributeError(f"module 'causalcxr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
