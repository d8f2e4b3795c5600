"""Takes attributes out of embeddings, and measures with fresh probes how much of them is left."""

from causalcxr.debias.counterfactual import Counterfactual, Span
from causalcxr.debias.independence import Distilled, Independence, Published
from causalcxr.debias.linear import LEACE, SPLINCE
from causalcxr.debias.noise import Noise
from causalcxr.debias.registry import load_eraser, save_eraser
from causalcxr.debias.residual import Residual
from causalcxr.debias.transport import Transport

__all__ = [
    "LEACE",
    "SPLINCE",
    "Counterfactual",
    "Distilled",
    "Independence",
    "Noise",
    "Published",
    "Residual",
    "Span",
    "Transport",
    "load_eraser",
    "save_eraser",
]
