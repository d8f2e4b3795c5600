"""Counterfactual fine-tuning: an intervention must change what it should, and leave alone what it should.

For a random intervention on every row, the image mechanism's counterfactual `x*` is shown to a frozen predictor,
whose outputs are pulled to targets (`targets.py`):

    minimise  sum_a cross-entropy(t_a, q(a | x*))   subject to   E <= eps + tolerance

`E` is the image stage's own loss on factual images, the negative evidence lower bound (with beta and the auxiliary
loss if the model has them: only what it was trained for can hold it); `eps` is its mean before fine-tuning.
Source of the constraint: De Sousa Ribeiro et al. 2023 (arXiv:2306.15764).
"""

from dataclasses import dataclass

from torch import Tensor

from causalcxr.interventions import draw_one_each
from causalcxr.predictors.augment import augment_alike
from causalcxr.predictors.outputs import OutputModel
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.training.config import FinetuneConfig
from causalcxr.training.constraint import Constraint
from causalcxr.training.objectives import Objective
from causalcxr.training.targets import Pair, Targets, choose_targets
from causalcxr.values import Batch

__all__ = ["FinetuneObjective"]


@dataclass(frozen=True)
class _Frozen:
    """A plain object, which hides what does not train from the objective's parameters."""

    scm: StructuralCausalModel
    targets: Targets | None


class FinetuneObjective(Objective):
    """The loss of every attribute in nats, and the constraint's term by dimension.

    One pass of the encoder and two of the decoder: the factual one gives the bound and the noise, the other the
    counterfactual. The predictor and the attributes' mechanisms are frozen, and no part of this module.
    """

    keeps_last = True

    def __init__(
        self,
        scm: StructuralCausalModel,
        predictor: Predictor,
        config: FinetuneConfig,
        marginals: Batch,
        bound: float,
        outputs: OutputModel | None = None,
    ):
        """`marginals`: the training attributes. `bound`: eps, by dimension. `outputs`: for the last mode."""
        super().__init__()
        mechanism = scm.image_mechanism
        self.mechanism, self.image, self.config = mechanism, mechanism.variable.name, config
        scm.requires_grad_(False)
        mechanism.requires_grad_(True)
        self._frozen = _Frozen(scm, choose_targets(config, predictor.eval().requires_grad_(False), outputs))
        self.marginals = marginals
        self.intervene = tuple(config.intervene) or scm.graph.causes_of_image
        self.constraint = Constraint(config, bound)
        self.names = (*(variable.name for variable in predictor.variables), "constraint")
        if config.targets == "none":
            self.names = (self.image,)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image, targets = batch[self.image], self._frozen.targets
        inferred = self.mechanism.infer(image, batch, draws)
        if targets is None:
            return {self.image: inferred.loss}
        do, rows = draw_one_each(self.intervene, self.marginals, len(image), draws)
        attributes = self._frozen.scm.intervene(batch, do, rows, draws)
        seen, made = inferred.image, self.mechanism(inferred.noise, attributes.counterfactual)
        if self.config.augment and self.training:
            seen, made = augment_alike([seen, made], self.config.augment, draws)
        losses = targets.losses(Pair(seen, made, attributes))
        return losses | {"constraint": self.constraint(inferred.loss, draws.world)}

    def state(self) -> dict[str, float]:
        return {} if self._frozen.targets is None else self.constraint.state()
