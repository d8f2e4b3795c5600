"""Continuous variables: a conditional rational-quadratic spline flow on a declared range.

The only file that imports normflows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from normflows.utils.splines import DEFAULT_MIN_DERIVATIVE, rational_quadratic_spline
from torch import Tensor
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import Conditioner, Mechanism
from causalcxr.randomness import Draws
from causalcxr.support.bounds import bounded
from causalcxr.values import Batch

__all__ = ["SplineConfig", "SplineMechanism"]


@dataclass
class SplineConfig:
    """Conditional spline flow: `bins` pieces on [-bound, bound], identity beyond; `hidden` units."""

    bins: int = bounded(8, least=2)
    bound: float = bounded(4.0, above=0)
    hidden: int = bounded(64, least=1)


class SplineMechanism(Mechanism):
    """`v := low + (high - low) sigmoid(a + b (loc(pa) + scale(pa) spline(u; pa)))`, u standard normal `(B,)`.

    The spline is that of Durkan et al. 2019 with linear tails. The sigmoid keeps every sample inside the declared
    range; `a`, `b` standardise the training values and are fixed by `calibrate`. Abduction is the exact inverse,
    computed in float64 inside: normflows 1.7.3 loses it in float32 where knots lie close together.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, variable: Variable, parents: Sequence[Variable], config: SplineConfig | None = None):
        super().__init__(variable, parents)
        self.config = config or SplineConfig()
        self.low, self.high = variable.bounds
        width = 3 * self.config.bins - 1  # widths, heights, and derivatives at the inner knots
        self.conditioner = Conditioner(parents, 2 + width, self.config.hidden)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        with torch.no_grad():  # derivative 1 at the inner knots: the spline starts as the identity
            self.conditioner.bias[-(self.config.bins - 1) :] = _IDENTITY_SLOPE

    def calibrate(self, batch: Batch) -> None:
        self.conditioner.calibrate(batch)
        logits, _ = self._to_logit(batch[self.variable.name])
        self.centre.fill_(logits.mean())
        self.spread.fill_(logits.std().clamp_min(1e-3) if len(logits) > 1 else 1.0)

    def sample_noise(self, n: int, draws: Draws | None = None) -> Tensor:
        draws = draws or Draws(device=self.centre.device)
        return draws.normal(n, dtype=self.centre.dtype)

    def forward(self, noise: Tensor, parents: Batch) -> Tensor:
        loc, log_scale, knots = self._conditioned(parents, len(noise))
        warped, _ = self._spline(noise.double(), knots, inverse=False)
        logit = self.centre + self.spread * (loc + log_scale.exp() * warped)
        value = self.low + (self.high - self.low) * torch.sigmoid(logit)
        return value.to(noise.dtype).clamp(self.low, self.high)

    def abduct(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        return self._inverse(value, parents)[0].to(self.centre.dtype)

    def log_prob(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        noise, log_slope = self._inverse(value, parents)
        log_prob = -0.5 * noise.square() - 0.5 * math.log(2 * math.pi) + log_slope
        return log_prob.to(self.centre.dtype)

    def _inverse(self, value: Tensor, parents: Batch) -> tuple[Tensor, Tensor]:
        """Noise `(B,)` and log |d noise / d value| `(B,)`, in float64."""
        loc, log_scale, knots = self._conditioned(parents, len(value))
        logit, log_slope_logit = self._to_logit(value)
        warped = ((logit - self.centre) / self.spread - loc) * torch.exp(-log_scale)
        noise, log_slope_spline = self._spline(warped, knots, inverse=True)
        return noise, log_slope_spline - log_scale - self.spread.log() + log_slope_logit

    def _conditioned(self, parents: Batch, n: int) -> tuple[Tensor, Tensor, Tensor]:
        parameters = self.conditioner(parents).expand(n, -1).double()
        loc, log_scale, knots = parameters[:, 0], parameters[:, 1], parameters[:, 2:]
        return loc, log_scale.clamp(-7, 7), knots

    def _to_logit(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of the position in the range, and log |d logit / d value|, in float64.

        The ends are taken a hair inside, as far as the model's own precision tells values apart.
        """
        span = self.high - self.low
        hair = 8 * torch.finfo(self.centre.dtype).eps
        position = ((value.double() - self.low) / span).clamp(hair, 1 - hair)
        log_slope = -position.log() - torch.log1p(-position) - math.log(span)
        return torch.logit(position), log_slope

    def _spline(self, points: Tensor, knots: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Spline inside the bound, identity in the tails; and log-slope. Every row takes both paths, so a batch
        that lies wholly in the tails is no special case."""
        bins, bound = self.config.bins, self.config.bound
        widths, heights, slopes = knots.split([bins, bins, bins - 1], dim=-1)
        slopes = F.pad(slopes, (1, 1), value=_IDENTITY_SLOPE)  # slope 1 where the tails begin
        inside = points.abs() < bound
        warped, log_slope = rational_quadratic_spline(
            points.clamp(-bound, bound),
            widths,
            heights,
            slopes,
            inverse=inverse,
            left=-bound,
            right=bound,
            bottom=-bound,
            top=bound,
        )
        return torch.where(inside, warped, points), log_slope * inside


# The unnormalised derivative whose softplus, plus normflows' floor, is 1.
_IDENTITY_SLOPE = math.log(math.expm1(1 - DEFAULT_MIN_DERIVATIVE))
