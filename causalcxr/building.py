"""From a configuration to its graph, and to untrained modules: the model, the classifiers."""

from dataclasses import replace

from causalcxr.config import Config
from causalcxr.graph import Graph, load_graph
from causalcxr.mechanisms.registry import choose_image_mechanism
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.scm import StructuralCausalModel

__all__ = ["ROLES", "build_model", "build_predictor", "open_graph"]

ROLES = ("predictor", "evaluator")


def open_graph(config: Config) -> tuple[Config, Graph]:
    """The graph of a configuration with the image mechanism asked for, and the configuration that names it."""
    graph = choose_image_mechanism(load_graph(config.graph), config.model.image)
    if graph.image is None:
        return config, graph
    return replace(config, model=replace(config.model, image=graph[graph.image].mechanism)), graph


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
