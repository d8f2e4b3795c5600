"""Binary and categorical variables: the Gumbel-max mechanism, abducted from its exact posterior."""

from collections.abc import Sequence

import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import Conditioner, Mechanism
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = ["CategoricalMechanism", "gumbel_posterior"]


class CategoricalMechanism(Mechanism):
    """`v := argmax_j (logit_j(parents) + u_j)` with independent standard Gumbel `u_j`; noise is `(B, K)`.

    The coupling of counterfactual outcomes that Gumbel-max implies is a convention: the data fix the
    interventional law, not which patient changes class (Oberst & Sontag 2019).
    """

    def __init__(self, variable: Variable, parents: Sequence[Variable], hidden: int = 64):
        super().__init__(variable, parents)
        self.conditioner = Conditioner(parents, len(variable.labels), hidden)

    def calibrate(self, batch: Batch) -> None:
        self.conditioner.calibrate(batch)

    def logits(self, parents: Batch) -> Tensor:
        """Normalised log-probabilities of the classes, `(B, K)`; `(1, K)` for a root."""
        return self.conditioner(parents).log_softmax(dim=-1)

    def sample_noise(self, n: int, draws: Draws | None = None) -> Tensor:
        bias = self.conditioner.bias
        draws = draws or Draws(device=bias.device)
        return draws.gumbel(n, len(self.variable.labels), dtype=bias.dtype)

    def forward(self, noise: Tensor, parents: Batch) -> Tensor:
        return (self.logits(parents) + noise).argmax(dim=-1)

    def abduct(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        logits = self.logits(parents).expand(len(value), -1)
        return gumbel_posterior(logits, value, draws or Draws(device=logits.device))

    def log_prob(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        logits = self.logits(parents).expand(len(value), -1)
        return logits.gather(-1, value.long().unsqueeze(-1)).squeeze(-1)


def gumbel_posterior(logits: Tensor, observed: Tensor, draws: Draws) -> Tensor:
    """A draw of the Gumbel noise `(B, K)` given that class `observed` `(B,)` had the largest perturbed logit.

    The maximum is Gumbel with location logsumexp(logits); the others are Gumbels truncated at it. Any constant
    on the logits cancels. See Maddison, Tarlow, Minka 2014.
    """
    logits = logits.log_softmax(dim=-1)  # the location of the maximum becomes 0
    chosen = observed.long().unsqueeze(-1)
    maximum = draws.gumbel(len(logits), 1, dtype=logits.dtype)
    free = draws.gumbel(*logits.shape, dtype=logits.dtype) + logits
    truncated = -torch.logaddexp(-free, -maximum)
    # A rounding error must not let another class win the argmax: keep them below by a few units in the last place.
    ulp = torch.finfo(logits.dtype).eps * (1 + maximum.abs() + logits.abs().amax(dim=-1, keepdim=True))
    perturbed = torch.minimum(truncated, maximum - 4 * ulp).scatter(-1, chosen, maximum)
    return perturbed - logits
