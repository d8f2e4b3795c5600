"""The untrained predictor and evaluator of a configuration."""

import torch

from causalcxr.config import Config
from causalcxr.graph import Graph
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of

__all__ = ["ROLES", "build_predictor"]

ROLES = ("predictor", "evaluator")


def build_predictor(role: str, config: Config, graph: Graph) -> NetworkPredictor:
    """An untrained predictor; each role has an architecture and a seed of its own.

    The one that severities are measured with tells their findings by side.
    """
    assert graph.image is not None
    variables = [graph[name] for name in graph.attributes]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed_of(config.train.seed, role))
        sided = config.model.severity.of if role == "predictor" else ()
        return NetworkPredictor(variables, getattr(config.model, role), graph[graph.image].channels, sided)
