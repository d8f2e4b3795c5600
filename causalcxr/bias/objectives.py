"""What a study's networks minimise: weighted cross-entropy and, for unlearning, two losses of the group."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.bias.films import GROUP, IMAGE, WEIGHT
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.augment import augment
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws, seeded
from causalcxr.training.objectives import Objective
from causalcxr.values import Batch

__all__ = ["FindingObjective", "UnlearningObjective", "reweighing"]


class FindingObjective(Objective):
    """Balanced cross-entropy of the finding (nats), each row times its weight."""

    keeps_last = True  # all networks of a study take the same number of steps

    def __init__(self, predictor: NetworkPredictor):
        super().__init__()
        self.predictor = predictor
        self.names = (predictor.variables[0].name,)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return self._losses(self._features(batch, draws), batch)

    def _features(self, batch: Batch, draws: Draws) -> Tensor:
        """A network's own randomness, such as dropout, follows from the step as well: a twin's is the same."""
        image = image_to_float(batch[IMAGE])
        if not self.training:
            return self.predictor.features(image)
        image = augment(image, self.predictor.config.augment, draws)
        with seeded(int(draws.integers(2**31 - 1, 1))):
            return self.predictor.features(image)

    def _losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        found = self.predictor.losses(features, batch)
        return {name: batch[WEIGHT] * loss for name, loss in found.items()}


class UnlearningObjective(FindingObjective):
    """The finding, a group head on features that it does not change, and features that leave that head at a loss.

    Each loss reaches its own weights: the head learns the group from the features as they are; the encoder, with
    the head as it is, learns to make its output uniform (Tzeng et al. 2015; Dinsdale et al. 2021).
    """

    def __init__(self, predictor: NetworkPredictor, weight: float):
        super().__init__(predictor)
        width = predictor.linear[0].in_features
        assert isinstance(width, int)
        self.head, self.weight = nn.Linear(width, 2), weight
        self.names = (*self.names, "group", "confusion")

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        features = self._features(batch, draws)
        learnt = F.cross_entropy(self.head(features.detach()), batch[GROUP], reduction="none")
        seen = F.linear(features, self.head.weight.detach(), self.head.bias.detach())
        confusion = -F.log_softmax(seen, dim=1).mean(dim=1)  # cross-entropy to a uniform target
        return self._losses(features, batch) | {"group": learnt, "confusion": self.weight * confusion}


def reweighing(finding: Tensor, group: Tensor) -> Tensor:
    """`P(y) P(g) / P(y, g)` of every row `(N,)`, which makes both independent (Kamiran and Calders 2012)."""
    weight = torch.zeros(len(finding), dtype=torch.float64)
    for y in (False, True):
        for g in (False, True):
            cell = (finding == y) & (group == g)
            expected = (finding == y).double().mean() * (group == g).double().mean()
            weight[cell] = expected / cell.double().mean()
    return weight
