"""A predictor's outputs as variables of the graph: what it would have said of the counterfactual image.

Every output `s` (a log-odds, or a predicted number) is a node whose parents are all the image's parents,
`s = f(w, parents)`, with the conditional spline flow that continuous attributes have. Fitted on the training
split; then abduct `w` from the factual image's output, act on the parents, predict `s*`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.predictors.predictor import Prediction
from causalcxr.values import Batch

__all__ = ["OutputBatch", "OutputModel", "output_nodes", "output_ranges", "output_values"]

Range = tuple[float, float]

_ROOM = 0.5  # of the outputs' range, added on both sides: a counterfactual may leave the observed range


class OutputBatch(NamedTuple):
    """A predictor's outputs `(B, M)`, one column a node, and the parents of the images that it was shown."""

    outputs: Tensor
    parents: Batch


class OutputModel(nn.Module):
    """A conditional flow for every output of a predictor given the image's `parents`."""

    spread: Tensor

    def __init__(self, variables: Sequence[Variable], parents: Sequence[Variable], ranges: Sequence[Range]):
        """`ranges`: the lowest and highest value of every output, see `output_ranges`."""
        super().__init__()
        self.variables, self.nodes, self.parents = tuple(variables), output_nodes(variables), tuple(parents)
        declared = [
            Variable(name=node, kind="continuous", range=(low, high), mechanism="spline")
            for node, (low, high) in zip(self.nodes, ranges, strict=True)
        ]
        self.flows = nn.ModuleList(SplineMechanism(variable, parents, SplineConfig()) for variable in declared)
        self.register_buffer("spread", torch.ones(len(self.nodes)))

    def calibrate(self, train: OutputBatch) -> None:
        """Take the scalings from the training split: its outputs (see `output_values`) and parents `(N,)`."""
        for flow, values in zip(self._flows, train.outputs.unbind(dim=1), strict=True):
            flow.calibrate({**train.parents, flow.variable.name: values})
        self.spread.copy_(_residual_spread(train.outputs, self.parents, train.parents))

    def forward(self, batch: OutputBatch) -> dict[str, Tensor]:
        """Negative log-likelihood `(B,)` of every node given the parents, in nats."""
        return {
            flow.variable.name: -flow.log_prob(values, batch.parents)
            for flow, values in zip(self._flows, batch.outputs.unbind(dim=1), strict=True)
        }

    def carry(self, prediction: Prediction, before: Batch, after: Batch) -> Tensor:
        """The outputs `(B, M)` on a factual image, carried from its parents `before` to those `after`."""
        observed = output_values(self.variables, prediction).unbind(dim=1)
        carried = [
            flow(flow.abduct(value, before), after) for flow, value in zip(self._flows, observed, strict=True)
        ]
        return torch.stack(carried, dim=1)

    def distances(self, prediction: Prediction, targets: Tensor) -> dict[str, Tensor]:
        """Half the squared distance `(B,)` to the targets `(B, M)` by attribute, in units of each output's spread.

        Log-odds and not probabilities: a target that is all but certain would not be felt any more.
        """
        found, first = {}, 0
        distance = 0.5 * ((output_values(self.variables, prediction) - targets) / self.spread).square()
        for variable in self.variables:
            last = first + len(output_nodes([variable]))
            found[variable.name], first = distance[:, first:last].sum(dim=1), last
        return found

    @property
    def _flows(self) -> list[SplineMechanism]:
        return [flow for flow in self.flows if isinstance(flow, SplineMechanism)]


def output_nodes(variables: Sequence[Variable]) -> tuple[str, ...]:
    """The names of the outputs: each label but the first of a discrete attribute, or the number itself."""
    nodes = []
    for variable in variables:
        of_labels = [f"{variable.name}: {label}" for label in variable.labels[1:]]
        nodes += [f"output of {name}" for name in of_labels or [variable.name]]
    return tuple(nodes)


def output_values(variables: Sequence[Variable], prediction: Prediction) -> Tensor:
    """The outputs `(B, M)`: each label's log-odds against the first, or the predicted number."""
    columns = []
    for variable in variables:
        output = prediction[variable.name]
        columns.append(output[:, 1:] - output[:, :1] if variable.is_discrete else output[:, None])
    return torch.cat(columns, dim=1)


def output_ranges(outputs: Tensor) -> list[Range]:
    """What every output `(N, M)` may be: from its lowest to its highest value, with room on both sides."""
    found = []
    for values in outputs.unbind(dim=1):
        low, high = float(values.min()), float(values.max())
        room = _ROOM * (high - low) + 1e-3
        found.append((low - room, high + room))
    return found


def _residual_spread(outputs: Tensor, causes: Sequence[Variable], known: Batch) -> Tensor:
    """Standard deviation of every output about its linear regression on the causes."""
    encoder = ParentEncoder(causes)
    encoder.calibrate(known)
    features, outputs = encoder(known).double(), outputs.double()
    features, outputs = features - features.mean(dim=0), outputs - outputs.mean(dim=0)
    weight = torch.linalg.lstsq(features, outputs, driver="gelsd").solution  # one-hot columns are dependent
    return (outputs - features @ weight).square().mean(dim=0).sqrt().clamp_min(1e-6).float()
