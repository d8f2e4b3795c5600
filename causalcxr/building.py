"""From a configuration and a graph to untrained modules: the model, its severities, the classifiers."""

from collections.abc import Sequence
from dataclasses import replace

from causalcxr.config import Config
from causalcxr.graph import Graph
from causalcxr.mechanisms.severity import Severity
from causalcxr.predictors.evidence import SIDES, Evidence
from causalcxr.predictors.networks import SMALL
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["ROLES", "build_model", "build_predictor", "build_severity"]

ROLES = ("predictor", "evaluator")


def build_model(config: Config, graph: Graph) -> StructuralCausalModel:
    """An untrained model, the same for the same `train.seed`. Raises ConfigError: settings that do not fit."""
    with seeded(config.train.seed):
        severity = build_severity(config, graph)
        flows = graph.image is not None and graph[graph.image].mechanism == "flow"
        if flows and severity is not None:
            raise ConfigError(
                "model.severity.of: the mechanism 'flow' has no severities; set model.severity.of=[]"
            )
        image = replace(config.model.flow, size=config.data.size) if flows else config.model.image
        return StructuralCausalModel(graph, image, config.model.spline, severity)


def build_predictor(role: str, config: Config, graph: Graph) -> NetworkPredictor:
    """An untrained predictor; each role has an architecture and a seed of its own.

    The one that severities are measured with predicts their findings by side.
    """
    assert graph.image is not None
    variables = [graph[name] for name in graph.attributes]
    sided = config.model.severity.of if role == "predictor" else ()
    with seeded(seed_of(config.train.seed, role)):
        return NetworkPredictor(variables, getattr(config.model, role), graph[graph.image].channels, sided)


def build_severity(config: Config, graph: Graph) -> Severity | None:
    """The severities that `model.severity` asks for, unfitted; None if it asks for none.

    Raises ConfigError: a name that is no binary parent of the image, stages that leave them unfitted, or a
    predictor without a map of the image.
    """
    names = list(config.model.severity.of)
    if not names:
        return None
    _check(names, config, graph)
    sides = [f"severity of {name}, {side}" for name in names for side in SIDES]
    assert graph.image is not None
    evidence = Evidence(build_predictor("predictor", config, graph), names)
    return Severity(sides, graph.parents(graph.image), evidence.requires_grad_(False), config.model.severity)


def _check(names: Sequence[str], config: Config, graph: Graph) -> None:
    parents = graph.parents(graph.image) if graph.image else ()
    binary = [parent.name for parent in parents if len(parent.labels) == 2]
    for name in names:
        if name not in binary:
            raise ConfigError(
                f"model.severity.of has '{name}', which is no binary parent of the image; {nearest(name, binary)}"
            )
    stages = list(config.train.stages)
    if "image" in stages and "predictors" not in stages[: stages.index("image")]:
        raise ConfigError(
            "model.severity.of needs the stage 'predictors' before 'image'; "
            "set train.stages=[attributes,predictors,image]"
        )
    if config.model.predictor.architecture not in SMALL:
        raise ConfigError(
            f"model.severity.of needs a predictor that keeps a map of the image: {' or '.join(SMALL)}, "
            f"not '{config.model.predictor.architecture}'; set model.predictor.architecture"
        )
