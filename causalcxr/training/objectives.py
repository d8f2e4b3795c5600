"""What each stage minimises: one class a stage, each the loss of every row by variable."""

from typing import Any

import torch
from torch import Tensor, nn

from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.augment import augment
from causalcxr.predictors.outputs import OutputBatch, OutputModel
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws, seeded
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch

__all__ = [
    "AttributesObjective",
    "ImageObjective",
    "Objective",
    "OutputsObjective",
    "PredictorObjective",
]


class Objective(nn.Module):
    """A loss of each row, by variable. Its parameters are those that the stage trains, and no others."""

    keeps_last = False  # whether the last weights are kept whatever the validation loss
    names: tuple[str, ...] = ()
    step: Tensor  # that is being taken, from 0; the loop sets it. A number would be compiled anew at every step

    def __init__(self):
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, batch: Any, draws: Draws) -> dict[str, Tensor]:
        """Loss of every row `(B,)` by variable; training minimises the mean of their sum.

        `batch` is what the rows give that the objective is trained on.
        """
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
    """The image mechanism's own loss by dimension.

    In training the weight of a KL term grows linearly over the first `kl_warmup_steps`.
    """

    def __init__(self, scm: StructuralCausalModel, kl_warmup_steps: int = 0):
        super().__init__()
        self.mechanism = scm.image_mechanism
        self.names = (self.mechanism.variable.name,)
        self.kl_warmup_steps = kl_warmup_steps

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = batch[self.names[0]]
        return {self.names[0]: self.mechanism.training_loss(image, batch, draws, self._kl_share())}

    def _kl_share(self) -> Tensor | float:
        """Of the KL's full weight, at this step."""
        if not self.training or not self.kl_warmup_steps:
            return 1.0
        return ((self.step + 1) / self.kl_warmup_steps).clamp_max(1)


class PredictorObjective(Objective):
    """Balanced cross-entropy (nats) or half the squared standardised error of every attribute."""

    def __init__(self, predictor: NetworkPredictor, image: str):
        super().__init__()
        self.predictor, self.image = predictor, image
        self.names = tuple(variable.name for variable in predictor.variables)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = image_to_float(batch[self.image])
        if self.training:
            image = augment(image, self.predictor.config.augment, draws)
            with seeded(int(draws.integers(2**31 - 1, 1))):  # dropout follows from the step
                return self.predictor.losses(self.predictor.features(image), batch)
        return self.predictor.losses(self.predictor.features(image), batch)


class OutputsObjective(Objective):
    """Negative log-likelihood of the predictor's outputs given the image's parents, in nats."""

    def __init__(self, model: OutputModel):
        super().__init__()
        self.model, self.names = model, model.nodes

    def forward(self, batch: OutputBatch, draws: Draws) -> dict[str, Tensor]:
        return self.model(batch)
