"""From a configuration and a graph to untrained modules: the model, the classifiers."""

from causalcxr.config import Config
from causalcxr.graph import Graph
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.scm import StructuralCausalModel

__all__ = ["ROLES", "build_model", "build_predictor"]

ROLES = ("predictor", "evaluator")


def build_model(config: Config, graph: Graph) -> StructuralCausalModel:
    """An untrained model, the same for the same `train.seed`. Raises ConfigError: settings that do not fit."""
    with seeded(config.train.seed):
        return StructuralCausalModel(graph, config.model, config.data.size)


def build_predictor(role: str, config: Config, graph: Graph) -> NetworkPredictor:
    """An untrained predictor; each role has an architecture and a seed of its own."""
    assert graph.image is not None
    variables = [graph[name] for name in graph.attributes]
    with seeded(seed_of(config.train.seed, role)):
        return NetworkPredictor(variables, getattr(config.model, role), graph[graph.image].channels)
