"""What each stage minimises: the negative log-likelihood of the attributes, and the image's negative ELBO."""

import math

import torch
from torch import Tensor, nn

from causalcxr.mechanisms.severity import Severity
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch

__all__ = ["AttributesObjective", "ImageObjective", "Objective", "SeverityObjective"]


class Objective(nn.Module):
    """A loss of each row, by variable. Its parameters are those that the stage trains, and no others."""

    needs_image = False
    keeps_last = False  # whether the last weights are kept whatever the validation loss
    names: tuple[str, ...] = ()
    step: Tensor  # that is being taken, from 0; the loop sets it. A number would be compiled anew at every step

    def __init__(self):
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Loss of every row `(B,)` by variable; the stage minimises the mean of their sum."""
        raise NotImplementedError

    def state(self) -> dict[str, float]:
        """What else to record of a training step, by name."""
        return {}


class AttributesObjective(Objective):
    """Negative log-likelihood of each attribute given its parents, in nats."""

    def __init__(self, scm: StructuralCausalModel):
        super().__init__()
        self.names = scm.graph.attributes
        self.mechanisms = nn.ModuleDict({name: scm.mechanism(name) for name in self.names})

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {
            name: -mechanism.log_prob(batch[name], batch, draws)  # pyright: ignore[reportCallIssue]
            for name, mechanism in self.mechanisms.items()
        }


class ImageObjective(Objective):
    """Negative ELBO of the image given its parents (its KL weighted by beta), in bits per dimension.

    In training the KL's weight grows linearly over the first `kl_warmup_steps`.
    """

    needs_image = True

    def __init__(self, scm: StructuralCausalModel, kl_warmup_steps: int = 0):
        super().__init__()
        self.mechanism = scm.image_mechanism
        self.names = (self.mechanism.variable.name,)
        self.kl_warmup_steps = kl_warmup_steps

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = batch[self.names[0]]
        elbo = self.mechanism.elbo(image, batch, draws, disguise=self.training)
        nats = self.mechanism.loss(elbo, self._kl_share())
        return {self.names[0]: nats / (math.log(2) * image[0].numel())}

    def _kl_share(self) -> Tensor | float:
        """Of the KL's full weight, at this step."""
        if not self.training or not self.kl_warmup_steps:
            return 1.0
        return ((self.step + 1) / self.kl_warmup_steps).clamp_max(1)


class SeverityObjective(Objective):
    """Negative log-likelihood of the severities, as they are measured, given the image's parents, in nats."""

    def __init__(self, severity: Severity):
        super().__init__()
        self.severity, self.names = severity, tuple(variable.name for variable in severity.variables)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return self.severity.losses({**batch, **self.severity.blur(batch, draws)})
