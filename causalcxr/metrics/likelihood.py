"""How well the model predicts held-out data: bits per dimension of the image, log-likelihood of each attribute."""

import torch
from torch import Tensor

from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch

__all__ = ["ATTRIBUTE_DEFINITION", "IMAGE_DEFINITION", "LOSS_DEFINITION", "attribute_log_likelihoods"]

IMAGE_DEFINITION = (
    "Negative evidence lower bound of the image given its parents, in bits per pixel and channel: an upper bound "
    "of the code length (one draw of the latents). Lower is better; a uniform guess over 256 grey levels takes 8."
)
LOSS_DEFINITION = (
    "The image stage's own loss on held-out images. Of the mechanism hvae, in bits per pixel and channel: the "
    "negative evidence lower bound with the KL term weighted by beta, and the baseline's regression if there is "
    "one. Of the mechanism flow: the squared error of the velocity, by component. Fine-tuning is held to its mean "
    "before, plus a tolerance."
)
ATTRIBUTE_DEFINITION = (
    "Mean log-likelihood of the attribute given its parents, in nats: log-probability of a label, log-density per "
    "natural unit of a number. Higher is better."
)


@torch.no_grad()
def attribute_log_likelihoods(scm: StructuralCausalModel, batch: Batch) -> dict[str, Tensor]:
    """Log-likelihood `(B,)` in nats of each attribute given its parents, exact."""
    values = {name: batch[name].to(scm.device) for name in scm.graph.attributes}
    return {name: scm.mechanism(name).log_prob(values[name], values) for name in scm.graph.attributes}
