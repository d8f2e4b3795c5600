"""How marked a finding is, and on which side: a hidden variable between the recorded label and the image.

    severity_i := f_i(w_i, parents, severity_1 .. severity_{i-1})
    image      := f(u, parents, severities)

A label says yes or no; an effusion has a size and a side. A classifier's evidence on each half of the image tells
both, so it stands in for them: measured on the factual image, abducted, and carried to the counterfactual parents
like every other variable. Without it the decoder has nothing that says whose effusion it is, and takes a little
from both sides of everybody. The chain of flows (Knothe and Rosenblatt) keeps the sides' joint law.

Only what is above a floor counts, and makes a difference to the image: what nine in ten people without the finding
don't reach. Below it the evidence tells other things about a person, which would then be changed along with the
finding. It is abducted all the same, for it also tells who is close to having an effusion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.mechanisms.spline import SplineMechanism
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = ["Severity", "SeverityConfig", "SeverityNoise"]

_RANGE = (-15.0, 30.0)  # of the evidence, nats
_UNSEEN = 0.9  # share of the people without the finding in whom nothing of it counts


@dataclass
class SeverityConfig:
    """`of`: the binary parents of the image whose severity it is made with; empty: none, the label says it all.

    `noise`: standard deviation of the measurement, in units of the evidence's own over the training split. With
    none the severity would be a deterministic function of the image, and the likelihood unbounded. `price`: of a
    pixel that a finding hides, in nats: what it explains less well than that stays as it is.
    """

    of: list[str] = field(default_factory=list)
    noise: float = 0.1
    price: float = 0.3


@dataclass(frozen=True)
class SeverityNoise:
    """What measuring images gives.

    `noise`: exogenous, `(B, K)`. `kl`: their term of the evidence lower bound, `(B,)` in nats. `values`: the
    severities `(B,)` by name.
    """

    noise: Tensor
    kl: Tensor
    values: Batch


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

    def calibrate(self, batch: Batch) -> None:
        """Take floors and scalings from the training split's parents and severities."""
        values = torch.stack([batch[variable.name] for variable in self.variables])
        self.spread.copy_(values.double().std(dim=1))
        for i, name in enumerate(self.of):
            absent = batch[name] == 0
            if absent.any():
                sides = slice(i * len(values) // len(self.of), (i + 1) * len(values) // len(self.of))
                self.floor[sides] = values[sides, absent].quantile(_UNSEEN, dim=1).to(self.floor)
        self.encoder.calibrate(self.counted(batch))
        for flow in self._flows:
            flow.calibrate(batch)

    def counted(self, values: Batch) -> dict[str, Tensor]:
        """What of the severities `(B,)` makes a difference to the image: 0 up to the floor."""
        return {v.name: (values[v.name] - self.floor[i]).clamp_min(0) for i, v in enumerate(self.variables)}

    @torch.no_grad()
    def observe(self, image: Tensor) -> dict[str, Tensor]:
        """The evidence `(B,)` by severity, as it is."""
        with torch.autocast(image.device.type, enabled=False):
            columns = self.evidence(image.to(self._dtype)).unbind(dim=1)
        return {variable.name: column for variable, column in zip(self.variables, columns, strict=True)}

    def blur(self, observed: Batch, draws: Draws) -> dict[str, Tensor]:
        """Add the noise of the measurement; what would leave the range stays on its border."""
        deviation = self.noise * self.spread
        blurred = {}
        for i, variable in enumerate(self.variables):
            value = observed[variable.name]
            noise = draws.normal(len(value), dtype=value.dtype)
            blurred[variable.name] = (value + deviation[i] * noise).clamp(*_RANGE)
        return blurred

    @torch.no_grad()
    def abduct(self, image: Tensor, parents: Batch, draws: Draws) -> SeverityNoise:
        """Measure the severities of factual images, and find their exogenous noise.

        Evidence that the parents bring along under the severities' names is not looked for again.
        """
        names = [variable.name for variable in self.variables]
        brought = all(name in parents for name in names)
        observed = {name: parents[name] for name in names} if brought else self.observe(image)
        values = self.blur(observed, draws)
        known, deviation = {**parents, **values}, self.noise * self.spread
        noise, kl = [], torch.zeros(len(image), device=image.device, dtype=self._dtype)
        with torch.autocast(image.device.type, enabled=False):
            for i, flow in enumerate(self._flows):
                value = values[flow.variable.name]
                noise.append(flow.abduct(value, known))
                z = (value - observed[flow.variable.name]) / deviation[i]
                log_posterior = -0.5 * z.square() - deviation[i].log() - 0.5 * math.log(2 * math.pi)
                kl = kl + log_posterior - flow.log_prob(value, known)
        return SeverityNoise(torch.stack(noise, dim=1), kl, values)

    @torch.no_grad()
    def forward(self, noise: Tensor, parents: Batch) -> dict[str, Tensor]:
        """The severities `(B,)` by name that follow from their noise `(B, K)` and the image's parents."""
        known, values = dict(parents), {}
        with torch.autocast(noise.device.type, enabled=False):
            for i, flow in enumerate(self._flows):
                known[flow.variable.name] = values[flow.variable.name] = flow(noise[:, i], known)
        return values

    def amount(self, values: Batch) -> Tensor:
        """All that counts together, `(B,)`, each in units of its own spread: 0 if nothing does."""
        counted = torch.stack(list(self.counted(values).values()), dim=1)
        return (counted / self.encoder.scale).sum(dim=1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood `(B,)` of every severity given what comes before it, in nats."""
        return {flow.variable.name: -flow.log_prob(batch[flow.variable.name], batch) for flow in self._flows}

    @property
    def _flows(self) -> list[SplineMechanism]:
        return [flow for flow in self.flows if isinstance(flow, SplineMechanism)]

    @property
    def _dtype(self) -> torch.dtype:
        return self.encoder.loc.dtype
