"""The contract that every mechanism keeps, and how parents enter: their encoding, and what follows from it."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = ["Conditioner", "LocalPyroModule", "Mechanism", "MechanismDistribution", "ParentEncoder"]


class LocalPyroModule(PyroModule):
    """A PyroModule whose parameters stay in the module, never in Pyro's global parameter store.

    A call does not enter Pyro's parameter context, which is what registers them there. Sample sites work as ever.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return nn.Module.__call__(self, *args, **kwargs)


class Mechanism(LocalPyroModule):
    """A structural equation `v := f(noise, parents)` with its exogenous noise.

    Noise is a tensor, or (image) a small object; parents are a batch that may hold other variables too.
    Subclasses implement the four verbs below; `calibrate` is for scalings that are set from data, not trained.
    """

    def __init__(self, variable: Variable, parents: Sequence[Variable]):
        super().__init__()
        self.variable = variable
        self.parents = tuple(parents)

    def calibrate(self, batch: Batch) -> None:
        """Set fixed scalings from the training split. The default has none."""

    def sample_noise(self, n: int, draws: Draws | None = None) -> Any:
        """n draws of the exogenous noise."""
        raise NotImplementedError

    def forward(self, noise: Any, parents: Batch) -> Tensor:
        """The structural equation: the value, `(B,)` or `(B, C, H, W)`, in natural units."""
        raise NotImplementedError

    def abduct(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Any:
        """A draw of the noise given the value and its parents."""
        raise NotImplementedError

    def log_prob(self, value: Tensor, parents: Batch, draws: Draws | None = None) -> Tensor:
        """Log-density (log-mass) of each row, `(B,)`, in nats per natural unit. The image's is a lower bound."""
        raise NotImplementedError

    def distribution(self, parents: Batch, n: int) -> "MechanismDistribution":
        """The variable given its parents, as a distribution that Pyro can use."""
        return MechanismDistribution(self, parents, n)


class MechanismDistribution(TorchDistribution):
    """`p(v | parents)` of a mechanism: sampling runs the structural equation on fresh noise."""

    has_rsample = False
    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, mechanism: Mechanism, parents: Batch, n: int):
        self.mechanism, self.parent_values = mechanism, parents
        event_shape = getattr(mechanism, "event_shape", torch.Size())
        super().__init__(torch.Size((n,)), torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Where the density is above zero."""
        variable = self.mechanism.variable
        if variable.is_discrete:
            return constraints.integer_interval(0, len(variable.labels) - 1)
        if variable.range is not None:
            return constraints.interval(*variable.bounds)
        return constraints.independent(constraints.unit_interval, 3)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A draw `(n,)` or `(n, C, H, W)`; several draws need a larger `n`."""
        assert not sample_shape, "draw more rows instead of a sample shape"
        with torch.no_grad():
            return self.mechanism(self.mechanism.sample_noise(self.batch_shape[0]), self.parent_values)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.mechanism.log_prob(value, self.parent_values)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MechanismDistribution":
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"a mechanism's rows are fixed by its parents: {self.batch_shape}, not {batch_shape}")
        return self


class ParentEncoder(nn.Module):
    """Parents in natural units to a feature vector `(B, width)`: one-hot classes, standardised numbers."""

    loc: Tensor
    scale: Tensor

    def __init__(self, parents: Sequence[Variable]):
        super().__init__()
        self.parents = tuple(parents)
        self.width = sum(len(p.labels) if p.is_discrete else 1 for p in self.parents)
        bounds = [p.bounds for p in self.parents if not p.is_discrete]
        self.register_buffer("loc", torch.tensor([(low + high) / 2 for low, high in bounds]))
        self.register_buffer("scale", torch.tensor([(high - low) / 4 for low, high in bounds]))

    def calibrate(self, batch: Batch) -> None:
        """Take mean and standard deviation of the continuous parents from the training split."""
        continuous = [p.name for p in self.parents if not p.is_discrete]
        for i, name in enumerate(continuous):
            values = batch[name].double()
            if values.std() > 0:
                self.loc[i], self.scale[i] = values.mean(), values.std()

    def columns_of(self, names: Collection[str]) -> Tensor:
        """Which of the features describe these parents, bool `(width,)`."""
        widths = [len(p.labels) if p.is_discrete else 1 for p in self.parents]
        named = torch.tensor([p.name in names for p in self.parents], dtype=torch.bool)
        return named.repeat_interleave(torch.tensor(widths, dtype=torch.int64))

    def values_of(self, name: str, features: Tensor) -> Tensor:
        """A continuous parent's values `(B,)` in natural units, from the features `(B, width)`."""
        i = [p.name for p in self.parents if not p.is_discrete].index(name)
        column = int(self.columns_of([name]).nonzero())
        return self.loc[i] + self.scale[i] * features[:, column]

    def forward(self, batch: Batch) -> Tensor:
        features, i = [], 0
        for parent in self.parents:
            value = batch[parent.name]
            if parent.is_discrete:
                features.append(F.one_hot(value.long(), len(parent.labels)).to(self.loc.dtype))
            else:
                features.append(((value.to(self.loc.dtype) - self.loc[i]) / self.scale[i]).unsqueeze(-1))
                i += 1
        return torch.cat(features, dim=-1)


class Conditioner(nn.Module):
    """Parameters `(B, width)` as a function of the parents; `(1, width)` constants for a root.

    A linear map plus a small network that starts at zero, so that training starts from the linear model.
    """

    def __init__(self, parents: Sequence[Variable], width: int, hidden: int):
        super().__init__()
        self.parents = tuple(parents)
        self.bias = nn.Parameter(torch.zeros(width))
        if self.parents:
            self.encoder = ParentEncoder(self.parents)
            self.linear = nn.Linear(self.encoder.width, width, bias=False)
            last = nn.Linear(hidden, width, bias=False)
            self.network = nn.Sequential(nn.Linear(self.encoder.width, hidden), nn.SiLU(), last)
            nn.init.zeros_(self.linear.weight)
            nn.init.normal_(last.weight, std=1e-3)

    def calibrate(self, batch: Batch) -> None:
        """Standardise the continuous parents by the training split."""
        if self.parents:
            self.encoder.calibrate(batch)

    def forward(self, batch: Batch) -> Tensor:
        if not self.parents:
            return self.bias.unsqueeze(0)
        features = self.encoder(batch)
        return self.bias + self.linear(features) + self.network(features)
