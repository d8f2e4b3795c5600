"""What the predictor should say of a counterfactual image: one class for each kind of targets.

| attribute       | hard                 | soft                           | counterfactual                    |
| --------------- | -------------------- | ------------------------------ | --------------------------------- |
| intervened      | new value            | new value                      | the factual image's prediction,   |
| its descendants | counterfactual value | counterfactual value           | carried from the factual parents  |
| any other       | observed value       | the factual image's prediction | to the counterfactual ones        |

Sources: De Sousa Ribeiro et al. 2023 (arXiv:2306.15764) for hard targets, Xia et al. 2024 (arXiv:2403.09422) for
soft ones. Counterfactual targets are this project's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.interventions import Intervened
from causalcxr.predictors.outputs import OutputModel
from causalcxr.predictors.predictor import Predictor
from causalcxr.training.config import FinetuneConfig

__all__ = ["Pair", "Targets", "choose_targets"]


@dataclass(frozen=True)
class Pair:
    """Factual and counterfactual images `(B, C, H, W)` as the predictor sees them, and the attributes of both."""

    factual: Tensor
    counterfactual: Tensor
    attributes: Intervened


class Targets:
    """What a frozen predictor says of counterfactual images, compared with targets.

    `weight`: of the loss where an intervention moves an attribute, against 1 elsewhere. Even exact counterfactuals
    miss the targets of what should stay alone a little, and a fainter change would miss them less.
    """

    def __init__(self, predictor: Predictor, weight: float):
        self.predictor, self.weight = predictor, weight

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Weighted loss `(B,)` by attribute."""
        weights = self.weights(pair.attributes)
        return {name: loss * weights[name] for name, loss in self.distances(pair).items()}

    def weights(self, attributes: Intervened) -> dict[str, Tensor]:
        """What each row counts, `(B,)` by attribute."""
        return {v.name: 1 + (self.weight - 1) * attributes.moves(v.name) for v in self.predictor.variables}

    def distances(self, pair: Pair) -> dict[str, Tensor]:
        """How far `(B,)` the predictions are from the targets, by attribute."""
        raise NotImplementedError


class HardTargets(Targets):
    """Labels: every attribute should look as its counterfactual value says."""

    def distances(self, pair: Pair) -> dict[str, Tensor]:
        predicted, targets, losses = self.predictor(pair.counterfactual), self.targets(pair), {}
        for variable in self.predictor.variables:
            name = variable.name
            if variable.is_discrete:
                losses[name] = -(targets[name] * F.log_softmax(predicted[name], dim=1)).sum(dim=1)
            else:
                spread = self.predictor.spread[self.predictor.index[name]]
                losses[name] = 0.5 * ((predicted[name] - targets[name]) / spread).square()
        return losses

    @torch.no_grad()
    def targets(self, pair: Pair) -> dict[str, Tensor]:
        """Probabilities `(B, labels)` and numbers `(B,)`."""
        found, values = {}, pair.attributes.counterfactual
        for variable in self.predictor.variables:
            value = values[variable.name]
            found[variable.name] = (
                F.one_hot(value, len(variable.labels)).float() if variable.is_discrete else value
            )
        return found


class IntervenedTargets(HardTargets):
    """Labels of what is intervened on alone; all else is left to the likelihood."""

    def weights(self, attributes: Intervened) -> dict[str, Tensor]:
        return {v.name: self.weight * attributes.sets(v.name) for v in self.predictor.variables}


class SoftTargets(HardTargets):
    """Labels of what the intervention moves; of any other attribute the prediction on the factual image."""

    @torch.no_grad()
    def targets(self, pair: Pair) -> dict[str, Tensor]:
        hard, seen, found = super().targets(pair), self.predictor(pair.factual), {}
        for variable in self.predictor.variables:
            name, fixed = variable.name, pair.attributes.moves(variable.name)
            soft = F.softmax(seen[name], dim=1) if variable.is_discrete else seen[name]
            found[name] = torch.where(fixed[:, None] if variable.is_discrete else fixed, hard[name], soft)
        return found


class CounterfactualTargets(Targets):
    """The predictions on the factual image, carried to the counterfactual parents by the flows of the outputs."""

    def __init__(self, predictor: Predictor, weight: float, outputs: OutputModel):
        super().__init__(predictor, weight)
        self.outputs = outputs.eval().requires_grad_(False)

    def distances(self, pair: Pair) -> dict[str, Tensor]:
        predicted = self.predictor(pair.counterfactual)
        return self.outputs.distances(predicted, self.targets(pair))

    @torch.no_grad()
    def targets(self, pair: Pair) -> Tensor:
        """The outputs `(B, M)` that the predictor should have."""
        seen, attributes = self.predictor(pair.factual), pair.attributes
        return self.outputs.carry(seen, attributes.factual, attributes.counterfactual)


def choose_targets(config: FinetuneConfig, predictor: Predictor, outputs: OutputModel | None) -> Targets | None:
    """The configured targets; None for `none`. `outputs`: the fitted flows, for counterfactual ones."""
    kinds = {"hard": HardTargets, "soft": SoftTargets, "intervened_only": IntervenedTargets}
    if config.targets == "none":
        return None
    if config.targets in kinds:
        return kinds[config.targets](predictor, config.intervened_weight)
    assert outputs is not None, "counterfactual targets need the flows of the outputs"
    return CounterfactualTargets(predictor, config.intervened_weight, outputs)
