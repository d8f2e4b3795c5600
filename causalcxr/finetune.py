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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.finetune_config import FinetuneConfig
from causalcxr.graph import Graph
from causalcxr.mechanisms.hvae import ImageNoise
from causalcxr.objectives import Objective
from causalcxr.predictors.augment import augment_alike
from causalcxr.predictors.outputs import OutputModel
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch, image_to_float

__all__ = ["FinetuneObjective", "Intervention", "draw_interventions", "follow"]


@dataclass(frozen=True)
class Intervention:
    """Which attribute each row intervenes on, and all attributes before and after.

    `intervened`, `reached`: bool `(B,)` by attribute, the second being the intervened one's descendants.
    """

    factual: Mapping[str, Tensor]
    counterfactual: Mapping[str, Tensor]
    intervened: Mapping[str, Tensor]
    reached: Mapping[str, Tensor]

    def moves(self, name: str) -> Tensor:
        """Where `(B,)` it sets an attribute or one of the attribute's causes."""
        return self.intervened[name] | self.reached[name]


def draw_interventions(
    scm: StructuralCausalModel, batch: Batch, names: Sequence[str], marginals: Batch, draws: Draws
) -> Intervention:
    """One attribute per row, uniform over `names`, set to a value from `marginals`, the training split's rows."""
    n = len(batch[names[0]])
    chosen = draws.integers(len(names), n)
    row = draws.integers(len(marginals[names[0]]), n)
    values = {name: marginals[name][row] for name in names}
    intervened = {a: torch.zeros_like(chosen, dtype=torch.bool) for a in scm.graph.attributes}
    intervened |= {name: chosen == i for i, name in enumerate(names)}
    return follow(scm, batch, values, intervened, draws)


@torch.no_grad()
def follow(
    scm: StructuralCausalModel, batch: Batch, values: Batch, intervened: Mapping[str, Tensor], draws: Draws
) -> Intervention:
    """Abduction, action and prediction of the attributes, each row with an intervention of its own.

    Descendants follow by their abducted noise; all other attributes keep their value bit for bit.
    """
    graph = scm.graph
    below = {name: graph.descendants(name) - {name} for name in values}
    after: dict[str, Tensor] = {}
    reached = {}
    for name in graph.attributes:
        hit = [intervened[cause] for cause in values if name in below[cause]]
        reached[name] = torch.stack(hit).any(dim=0) if hit else torch.zeros_like(intervened[name])
        value = batch[name]
        if hit:
            mechanism = scm.mechanism(name)
            moved = mechanism(mechanism.abduct(batch[name], batch, draws), after)
            value = torch.where(reached[name], moved, value)
        after[name] = torch.where(intervened[name], values[name], value) if name in values else value
    return Intervention({name: batch[name] for name in graph.attributes}, after, intervened, reached)


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

    needs_image = True
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
        self.intervene = tuple(config.intervene) or causes_of_image(scm.graph)
        self.names = (*self.predicted, self.image) if config.targets != "none" else (self.image,)
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("violation", torch.zeros(()))

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = batch[self.image]
        elbo = self.mechanism.elbo(image, batch, draws)
        to_bits = 1 / (math.log(2) * image[0].numel())
        if self.config.targets == "none":
            return {self.image: self.mechanism.loss(elbo) * to_bits}
        scm, predictor = self._frozen.scm, self._frozen.predictor
        intervention = draw_interventions(scm, batch, self.intervene, self.marginals, draws)
        noise = elbo.noise(image)
        made = self.mechanism(noise, intervention.counterfactual)
        shown = image_to_float(image, made.dtype)
        if self.config.augment and self.training:
            shown, made = augment_alike([shown, made], self.config.augment, draws)
        losses = self._losses(predictor(made), shown, intervention, noise)
        losses = {name: loss * self._weight(intervention, name) for name, loss in losses.items()}
        return losses | {self.image: self._constraint(self.mechanism.loss(elbo) * to_bits, draws)}

    def state(self) -> dict[str, float]:
        if self.config.targets == "none":
            return {}
        return {"multiplier": float(self.multiplier), "slack": -float(self.violation)}

    def _losses(
        self, predicted: Prediction, image: Tensor, intervention: Intervention, noise: ImageNoise
    ) -> dict[str, Tensor]:
        """Loss `(B,)` of every attribute: what is predicted of the counterfactual images against the targets."""
        predictor, outputs = self._frozen.predictor, self._frozen.outputs
        if outputs is not None:
            with torch.no_grad():
                seen = predictor(image)
                before = self.mechanism.complete(noise, intervention.factual)
                after = self.mechanism.complete(noise, intervention.counterfactual)
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
    def _targets(self, image: Tensor, intervention: Intervention) -> dict[str, Tensor]:
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

    def _weight(self, intervention: Intervention, name: str) -> Tensor:
        """Of an attribute's loss, `(B,)`: how much more it counts where the intervention moves the attribute.

        Even exact counterfactuals miss the targets of what should stay alone a little, and a fainter change would
        miss them less.
        """
        if self.config.targets == "intervened_only":
            return self.config.intervened_weight * intervention.intervened[name]
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


def causes_of_image(graph: Graph) -> tuple[str, ...]:
    """The attributes with a path to the image: those that an intervention can be seen by."""
    return tuple(name for name in graph.attributes if graph.image in graph.descendants(name))


def _mean_over_processes(value: Tensor, world: int) -> Tensor:
    if world > 1:
        torch.distributed.all_reduce(value)
    return value / world
