"""How marked a finding is, and on which side: a hidden variable between the recorded label and the image.

    severity_i := f_i(w_i, parents, severity_1 .. severity_{i-1})
    image      := f(u, parents, severities)

A label says yes or no; an effusion has a size and a side. A classifier's evidence on each half of the image shows
both, so it stands in for them: measured on the factual image, abducted, and carried to the counterfactual parents
like every other variable. Without it the decoder does not know whose effusion it is, and removes a little from
both sides of everybody. The chain of flows (Knothe and Rosenblatt) keeps the sides' joint law.

Only what is above a floor makes a difference to the image: what nine in ten people without the finding don't
reach. Below it the evidence reflects other things about a person, which would then be changed along with the
finding. It is abducted all the same, for it also shows who is close to having an effusion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.mechanisms.spline import SplineMechanism
from causalcxr.randomness import Draws
from causalcxr.support.bounds import bounded
from causalcxr.values import Batch

__all__ = ["Causes", "Severity", "SeverityConfig", "SeverityNoise"]

_RANGE = (-15.0, 30.0)  # of the evidence, nats
_UNSEEN = 0.9  # share of the people without the finding whose severity is below the floor


@dataclass
class SeverityConfig:
    """`of`: the binary parents of the image that get severities; empty: none, the label is all there is.

    `noise`: standard deviation of the measurement, in units of the evidence's own over the training split. With
    none the severity would be a deterministic function of the image, and the likelihood unbounded. `price`: of a
    pixel that a finding hides, in nats: what it explains less well than that stays as it is.
    """

    of: list[str] = field(default_factory=list)
    noise: float = bounded(0.1, above=0)
    price: float = bounded(0.3, least=0)


class Causes(NamedTuple):
    """What an image is made with: its parents by name, and the severities `(B, K)`; None without any."""

    parents: Batch
    severities: Tensor | None = None


@dataclass(frozen=True)
class SeverityNoise:
    """What measuring images gives.

    `noise`: exogenous, `(B, K)`. `kl`: their term of the evidence lower bound, `(B,)` in nats. `values`: the
    severities `(B, K)`.
    """

    noise: Tensor
    kl: Tensor
    values: Tensor


class Severity(nn.Module):
    """A flow for every severity given the image's parents and the severities before it.

    `evidence` maps images `(B, C, H, W)` to log-odds `(B, K)`, one for each of `names`, those of one finding next
    to each other. It is fixed, and so are the flows once they are fitted; the image's loss trains neither.
    """

    floor: Tensor
    spread: Tensor

    def __init__(
        self,
        names: Sequence[str],
        parents: Sequence[Variable],
        evidence: nn.Module,
        config: SeverityConfig,
    ):
        super().__init__()
        self.of, self.noise, self.price = tuple(config.of), config.noise, config.price
        self.variables = tuple(
            Variable(name=name, kind="continuous", range=_RANGE, mechanism="spline") for name in names
        )
        self.evidence = evidence
        self.register_buffer("floor", torch.zeros(len(self.variables)))
        self.register_buffer("spread", torch.ones(len(self.variables)))
        self.encoder = ParentEncoder(self.variables)
        known = [*parents, *self.variables]
        self.flows = nn.ModuleList(
            SplineMechanism(variable, known[: len(parents) + i]) for i, variable in enumerate(self.variables)
        )

    def calibrate(self, values: Tensor, parents: Batch) -> None:
        """Take floors and scalings from the training split's severities `(N, K)` and parents."""
        columns = values.T.contiguous()
        self.spread.copy_(columns.double().std(dim=1))
        for i, name in enumerate(self.of):
            absent = parents[name] == 0
            if absent.any():
                sides = slice(i * len(columns) // len(self.of), (i + 1) * len(columns) // len(self.of))
                self.floor[sides] = columns[sides, absent].quantile(_UNSEEN, dim=1).to(self.floor)
        self.encoder.calibrate(self._by_name(self.above_floor(values)))
        known = self.named(Causes(parents, values))
        for flow in self._flows:
            flow.calibrate(known)

    def above_floor(self, values: Tensor) -> Tensor:
        """The part of the severities `(B, K)` that makes a difference to the image: 0 up to the floor."""
        return (values - self.floor).clamp_min(0)

    def encode(self, values: Tensor) -> Tensor:
        """Features `(B, K)` of the severities `(B, K)`: their part above the floor, standardised."""
        return self.encoder(self._by_name(self.above_floor(values)))

    def total(self, values: Tensor) -> Tensor:
        """The sum `(B,)` of what is above the floor, each in units of its own spread: 0 if nothing is."""
        return (self.above_floor(values) / self.encoder.scale).sum(dim=1)

    @torch.no_grad()
    def observe(self, image: Tensor) -> Tensor:
        """The evidence `(B, K)` of images, without the noise of the measurement."""
        with torch.autocast(image.device.type, enabled=False):
            return self.evidence(image.to(self._dtype))

    def perturb(self, observed: Tensor, draws: Draws) -> Tensor:
        """Evidence `(B, K)` with the noise of the measurement; what would leave the range stays on its border."""
        deviation = self.noise * self.spread
        noise = [draws.normal(len(observed), dtype=observed.dtype) for _ in self.variables]
        return (observed + deviation * torch.stack(noise, dim=1)).clamp(*_RANGE)

    @torch.no_grad()
    def abduct(self, image: Tensor, parents: Batch, draws: Draws, evidence: Tensor | None = None) -> SeverityNoise:
        """Measure the severities of factual images, and find their exogenous noise.

        `evidence` `(B, K)`: of these images, if it was observed before.
        """
        observed = self.observe(image) if evidence is None else evidence
        values = self.perturb(observed, draws)
        known, deviation = self.named(Causes(parents, values)), self.noise * self.spread
        noise, kl = [], torch.zeros(len(image), device=image.device, dtype=self._dtype)
        with torch.autocast(image.device.type, enabled=False):
            for i, flow in enumerate(self._flows):
                noise.append(flow.abduct(values[:, i], known))
                z = (values[:, i] - observed[:, i]) / deviation[i]
                log_posterior = -0.5 * z.square() - deviation[i].log() - 0.5 * math.log(2 * math.pi)
                kl = kl + log_posterior - flow.log_prob(values[:, i], known)
        return SeverityNoise(torch.stack(noise, dim=1), kl, values)

    @torch.no_grad()
    def forward(self, noise: Tensor, parents: Batch) -> Tensor:
        """The severities `(B, K)` that follow from their noise `(B, K)` and the image's parents."""
        known, values = dict(parents), []
        with torch.autocast(noise.device.type, enabled=False):
            for i, flow in enumerate(self._flows):
                values.append(flow(noise[:, i], known))
                known[flow.variable.name] = values[-1]
        return torch.stack(values, dim=1)

    def losses(self, causes: Causes) -> dict[str, Tensor]:
        """Negative log-likelihood `(B,)` of every severity given what comes before it, in nats."""
        known = self.named(causes)
        return {flow.variable.name: -flow.log_prob(known[flow.variable.name], known) for flow in self._flows}

    def named(self, causes: Causes) -> Batch:
        """Parents and severities in one batch, as the spline flows take them."""
        return {**causes.parents, **({} if causes.severities is None else self._by_name(causes.severities))}

    def _by_name(self, values: Tensor) -> dict[str, Tensor]:
        return dict(zip((variable.name for variable in self.variables), values.unbind(dim=1), strict=True))

    @property
    def _flows(self) -> list[SplineMechanism]:
        return [flow for flow in self.flows if isinstance(flow, SplineMechanism)]

    @property
    def _dtype(self) -> torch.dtype:
        return self.encoder.loc.dtype
