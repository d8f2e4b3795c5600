"""A predictor's evidence of a finding on either half of the image, which stands in for its severity."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.config import Config
from causalcxr.data.cohort import Split
from causalcxr.errors import ConfigError, nearest
from causalcxr.graph import Graph
from causalcxr.mechanisms.severity import Severity
from causalcxr.predictors.building import build_predictor
from causalcxr.predictors.networks import SMALL
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.values import Batch, image_to_float

__all__ = ["Evidence", "build_severity", "observe_split"]

_UNSEEN = 0.9  # share of the people without the finding in whom nothing of it is seen
SIDES = ("left of the image", "right of the image")


class Evidence(nn.Module):
    """`-log q(absent | half of the image)` in nats above a floor: 0 where nothing is seen, growing with what is.

    The floor is what nine in ten people without the finding stay below. Down there the predictor's evidence tells
    other things about a person, which would then be changed along with the finding.
    """

    floor: Tensor

    def __init__(self, predictor: NetworkPredictor, names: Sequence[str]):
        super().__init__()
        self.predictor, self.names = predictor, tuple(names)
        self.register_buffer("floor", torch.zeros(len(SIDES) * len(self.names)))

    def fit_floor(self, evidence: Tensor, batch: Batch) -> None:
        """From the evidence `(N, 2 * names)` above no floor on the training split, and its labels."""
        for i, column in enumerate(evidence.T):
            absent = batch[self.names[i // len(SIDES)]] == 0
            if absent.any():
                self.floor[i] = column[absent].quantile(_UNSEEN)

    def forward(self, image: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to `(B, 2 * names)`: left and right half of the image for every name."""
        features = self.predictor.features(image)
        odds = [self.predictor.side_odds(features, name) for name in self.names]
        return self.above_floor(F.softplus(torch.cat(odds, dim=1)))

    def above_floor(self, evidence: Tensor) -> Tensor:
        """What of the evidence `(B, 2 * names)` counts."""
        return (evidence - self.floor.to(evidence.device)).clamp_min(0)


def observe_split(severity: Severity, rows: Split) -> dict[str, Tensor]:
    """The evidence `(N,)` on all images of a split, by severity, on the CPU."""
    device = severity.encoder.loc.device
    parts = [severity.observe(image_to_float(images.to(device))) for images in rows.images()]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


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
