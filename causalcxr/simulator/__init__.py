"""Simulated chest X-rays with known equations and stored noise, so that every counterfactual has a true answer."""

from causalcxr.simulator.channels import CHANNELS, noise
from causalcxr.simulator.equations import (
    DEFAULT,
    Knobs,
    attributes,
    effusion_volume,
    graph,
    recorded,
    selected,
    severity,
)
from causalcxr.simulator.projection import counterfactual, render

__all__ = [
    "CHANNELS",
    "DEFAULT",
    "Knobs",
    "attributes",
    "counterfactual",
    "effusion_volume",
    "graph",
    "noise",
    "recorded",
    "render",
    "selected",
    "severity",
]
