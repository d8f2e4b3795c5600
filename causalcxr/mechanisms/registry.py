"""Which mechanisms there are, and their settings. A new image mechanism is entered here, in two places."""

from dataclasses import dataclass, field

from causalcxr.graph import Graph, Variable
from causalcxr.mechanisms.base import Mechanism
from causalcxr.mechanisms.categorical import CategoricalMechanism
from causalcxr.mechanisms.flow import Flow, FlowConfig
from causalcxr.mechanisms.hvae import HVAE, HVAEConfig
from causalcxr.mechanisms.image import ImageMechanism
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.support.errors import GraphError, nearest

__all__ = ["IMAGE_MECHANISMS", "MechanismsConfig", "build_mechanism", "choose_image_mechanism"]

IMAGE_MECHANISMS: dict[str, type[ImageMechanism]] = {"hvae": HVAE, "flow": Flow}


@dataclass
class MechanismsConfig:
    """The mechanisms' settings: those of an image mechanism under its name."""

    image: str = ""  # mechanism of the image; empty: the one that the graph names
    template: TemplateConfig = field(default_factory=TemplateConfig)
    hvae: HVAEConfig = field(default_factory=HVAEConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    spline: SplineConfig = field(default_factory=SplineConfig)


def choose_image_mechanism(graph: Graph, name: str = "") -> Graph:
    """The graph whose image has this mechanism; empty: the one that it has. Raises GraphError: an unknown one."""
    name = name or (graph[graph.image].mechanism if graph.image is not None else "")
    if name and name not in IMAGE_MECHANISMS:
        raise GraphError(
            f"graph '{graph.name}': unknown mechanism '{name}' for kind 'image'; {nearest(name, IMAGE_MECHANISMS)}"
        )
    return graph.with_image_mechanism(name)


def build_mechanism(
    variable: Variable, parents: tuple[Variable, ...], config: MechanismsConfig, size: int
) -> Mechanism:
    """An untrained mechanism of a variable; `size`: side of an image, pixels."""
    if variable.mechanism == "categorical":
        return CategoricalMechanism(variable, parents)
    if variable.mechanism == "spline":
        return SplineMechanism(variable, parents, config.spline)
    section = getattr(config, variable.mechanism)
    return IMAGE_MECHANISMS[variable.mechanism](variable, parents, section, size, config.template)
