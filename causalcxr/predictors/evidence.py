"""A predictor's evidence of a finding on either half of the image, which stands in for its severity."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from causalcxr.config import Config
from causalcxr.data.cohort import Split
from causalcxr.graph import Graph
from causalcxr.mechanisms.severity import Severity
from causalcxr.predictors.building import build_predictor
from causalcxr.predictors.networks import SMALL
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.values import image_to_float

__all__ = ["Evidence", "build_severity", "observe_split"]

SIDES = ("left of the image", "right of the image")


class Evidence(nn.Module):
    """The log-odds of every finding on either half of the image, `(B, 2 * names)`, left before right."""

    def __init__(self, predictor: NetworkPredictor, names: Sequence[str]):
        super().__init__()
        self.predictor, self.names = predictor, tuple(names)

    def forward(self, image: Tensor) -> Tensor:
        """Of images `(B, C, H, W)`."""
        features = self.predictor.features(image)
        return torch.cat([self.predictor.side_odds(features, name) for name in self.names], dim=1)


def observe_split(severity: Severity, rows: Split) -> Tensor:
    """The evidence `(N, K)` on all images of a split, on the CPU."""
    device = severity.encoder.loc.device
    return torch.cat([severity.observe(image_to_float(images.to(device))).cpu() for images in rows.images()])


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
