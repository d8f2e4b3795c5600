"""Counterfactual fine-tuning: an intervention must change what it should, and leave alone what it should.

For a random intervention on every row, the image mechanism's counterfactual `x*` is shown to a frozen predictor,
whose outputs are pulled to targets:

    minimise  sum_a cross-entropy(t_a, q(a | x*))   subject to   E <= eps + tolerance

`E` is the image stage's own loss on factual images, the negative evidence lower bound (with beta and a baseline if
the model has them: only what it was trained for can hold it); `eps` is its mean before fine-tuning.

| attribute       | hard                 | soft                           | counterfactual                    |
| --------------- | -------------------- | ------------------------------ | --------------------------------- |
| intervened      | new value            | new value                      | the factual image's prediction,   |
| its descendants | counterfactual value | counterfactual value           | carried from the factual parents  |
| any other       | observed value       | the factual image's prediction | to the counterfactual ones        |

Sources: De Sousa Ribeiro et al. 2023 (arXiv:2306.15764) for the constraint and hard targets, Xia et al. 2024
(arXiv:2403.09422) for soft targets. Counterfactual targets are this project's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.interventions import draw_one_each, reached_rows
from causalcxr.mechanisms.hvae import ImageNoise
from causalcxr.mechanisms.likelihood import bits_per_dimension
from causalcxr.predictors.augment import augment_alike
from causalcxr.predictors.outputs import OutputModel
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.training.config import FinetuneConfig
from causalcxr.training.objectives import Objective
from causalcxr.values import Batch, image_to_float

__all__ = ["FinetuneObjective", "Intervened", "intervene"]


@dataclass(frozen=True)
class Intervened:
    """The attributes before and after, and where each was set or followed one that was.

    `intervened`, `reached`: bool `(B,)` by attribute; absent where none is.
    """

    factual: Batch
    counterfactual: Batch
    intervened: Mapping[str, Tensor]
    reached: Mapping[str, Tensor]

    def moves(self, name: str) -> Tensor:
        """Where `(B,)` it sets an attribute or one of the attribute's causes."""
        nowhere = torch.zeros_like(self.factual[name], dtype=torch.bool)
        return self.intervened.get(name, nowhere) | self.reached.get(name, nowhere)


@torch.no_grad()
def intervene(
    scm: StructuralCausalModel, batch: Batch, do: Batch, rows: Mapping[str, Tensor], draws: Draws
) -> Intervened:
    """Abduction, action and prediction of the attributes; `rows` (bool) are those that each `do` is done to."""
    reached = reached_rows(scm.graph, rows)
    noise = scm.abduct_attributes(batch, draws, reached)
    factual = {name: batch[name] for name in scm.graph.attributes}
    return Intervened(factual, scm.predict_attributes(noise, factual, do, rows), rows, reached)


@dataclass(frozen=True)
class _Frozen:
    scm: StructuralCausalModel
    predictor: Predictor
    outputs: OutputModel | None


class FinetuneObjective(Objective):
    """The auxiliary loss of every attribute in nats, and of the image the constraint's term in bits per dimension.

    One pass of the encoder and two of the decoder: the factual one gives the bound and the noise, the other the
    counterfactual. The predictor and the attributes' mechanisms are frozen, and no part of this module.
    """

    keeps_last = True
    multiplier: Tensor
    violation: Tensor

    def __init__(
        self,
        scm: StructuralCausalModel,
        predictor: Predictor,
        config: FinetuneConfig,
        marginals: Batch,
        bound: float,
        outputs: OutputModel | None = None,
    ):
        """`marginals`: the training attributes. `bound`: eps, bits per dimension. `outputs`: for the last mode."""
        super().__init__()
        mechanism = scm.image_mechanism
        self.mechanism, self.image, self.config = mechanism, mechanism.variable.name, config
        scm.requires_grad_(False)
        mechanism.requires_grad_(True)
        if mechanism.severity is not None:
            mechanism.severity.requires_grad_(False)
        if outputs is not None:
            outputs.eval().requires_grad_(False)
        # A plain object hides these from this module's parameters.
        self._frozen = _Frozen(scm, predictor.eval().requires_grad_(False), outputs)
        self.marginals, self.limit = marginals, bound + config.tolerance
        self.predicted = [v.name for v in predictor.variables if v.name in scm.graph.attributes]
        self.intervene = tuple(config.intervene) or scm.graph.causes_of_image
        self.names = (*self.predicted, self.image) if config.targets != "none" else (self.image,)
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("violation", torch.zeros(()))

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = batch[self.image]
        elbo = self.mechanism.elbo(image, batch, draws)
        bits = bits_per_dimension(self.mechanism.loss(elbo), self.mechanism.event_shape)
        if self.config.targets == "none":
            return {self.image: bits}
        scm, predictor = self._frozen.scm, self._frozen.predictor
        do, rows = draw_one_each(self.intervene, self.marginals, len(image), draws)
        intervention = intervene(scm, batch, do, rows, draws)
        noise = elbo.noise(image)
        made = self.mechanism(noise, intervention.counterfactual)
        shown = image_to_float(image, made.dtype)
        if self.config.augment and self.training:
            shown, made = augment_alike([shown, made], self.config.augment, draws)
        losses = self._losses(predictor(made), shown, intervention, noise)
        losses = {name: loss * self._weight(intervention, name) for name, loss in losses.items()}
        return losses | {self.image: self._constraint(bits, draws)}

    def state(self) -> dict[str, float]:
        if self.config.targets == "none":
            return {}
        return {"multiplier": float(self.multiplier), "slack": -float(self.violation)}

    def _losses(
        self, predicted: Prediction, image: Tensor, intervention: Intervened, noise: ImageNoise
    ) -> dict[str, Tensor]:
        """Loss `(B,)` of every attribute: what is predicted of the counterfactual images against the targets."""
        predictor, outputs = self._frozen.predictor, self._frozen.outputs
        if outputs is not None:
            with torch.no_grad():
                seen = predictor(image)
                before = self.mechanism.causes(noise, intervention.factual)
                after = self.mechanism.causes(noise, intervention.counterfactual)
                targets = outputs.carry(seen, before, after)
            return outputs.distances(predicted, targets)
        losses = {}
        for name, target in self._targets(image, intervention).items():
            if self._frozen.scm.graph[name].is_discrete:
                loss = -(target * F.log_softmax(predicted[name], dim=1)).sum(dim=1)
            else:
                spread = predictor.spread[predictor.index[name]]
                loss = 0.5 * ((predicted[name] - target) / spread).square()
            losses[name] = loss
        return losses

    @torch.no_grad()
    def _targets(self, image: Tensor, intervention: Intervened) -> dict[str, Tensor]:
        """Hard or soft targets: probabilities `(B, labels)`, numbers `(B,)`."""
        seen = self._frozen.predictor(image) if self.config.targets == "soft" else {}
        targets = {}
        for name in self.predicted:
            variable, value = self._frozen.scm.graph[name], intervention.counterfactual[name]
            target = F.one_hot(value, len(variable.labels)).float() if variable.is_discrete else value
            if seen:
                soft = F.softmax(seen[name], dim=1) if variable.is_discrete else seen[name]
                fixed = intervention.moves(name)
                target = torch.where(fixed[:, None] if variable.is_discrete else fixed, target, soft)
            targets[name] = target
        return targets

    def _weight(self, intervention: Intervened, name: str) -> Tensor:
        """Of an attribute's loss, `(B,)`: how much more it counts where the intervention moves the attribute.

        Even exact counterfactuals miss the targets of what should stay alone a little, and a fainter change would
        miss them less.
        """
        if self.config.targets == "intervened_only":
            nowhere = torch.zeros_like(intervention.factual[name], dtype=torch.bool)
            return self.config.intervened_weight * intervention.intervened.get(name, nowhere)
        return 1 + (self.config.intervened_weight - 1) * intervention.moves(name)

    def _constraint(self, bits: Tensor, draws: Draws) -> Tensor:
        """The multiplier times the violation `E - eps - tolerance`, whose gradient never pushes E up.

        Damped: the present violation counts at once, and the multiplier follows it slowly (Platt and Barr 1987).
        It has a floor: let go, the decoder would drift to fainter changes that please the predictor as well.
        """
        violation = _mean_over_processes(bits.detach().mean(), draws.world) - self.limit
        weight = (self.multiplier + self.config.damping * violation).clamp_min(self.config.multiplier_floor)
        if self.training:
            self.violation.copy_(violation)
            self.multiplier.add_(self.config.multiplier_rate * violation).clamp_(min=0)
        return weight * (bits - self.limit)


def _mean_over_processes(value: Tensor, world: int) -> Tensor:
    if world > 1:
        torch.distributed.all_reduce(value)
    return value / world
