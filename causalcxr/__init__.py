"""Deep structural causal models of chest X-rays: observational, interventional and counterfactual queries.

>>> import causalcxr
>>> scm = causalcxr.load("runs/demo")
>>> older = scm.counterfactual(batch, do={"age": 80})
"""

from causalcxr import simulator
from causalcxr.graph import Graph, Variable, graph_from_dict, load_graph
from causalcxr.runs import load
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.support.errors import CausalCXRError

__all__ = [
    "Abduction",
    "CausalCXRError",
    "Graph",
    "StructuralCausalModel",
    "Variable",
    "graph_from_dict",
    "load",
    "load_graph",
    "simulator",
]
