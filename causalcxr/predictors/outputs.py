"""A predictor's outputs as variables of the graph: what it would have said of the counterfactual image.

Every output `s` (a log-odds, or a predicted number) is a node whose parents are all the image's parents,
`s = f(w, parents)`, with the conditional spline flow that continuous attributes have. Fitted on the training
split; then abduct `w` from the factual image's output, act on the parents, predict `s*`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.predictors.predictor import Prediction
from causalcxr.values import Batch

__all__ = ["OutputModel", "output_nodes"]

_ROOM = 0.5  # of the outputs' range, added on both sides: a counterfactual may leave the observed range
_MARK = "output of "


class OutputModel(nn.Module):
    """A conditional flow for every output of a predictor."""

    spread: Tensor

    def __init__(self, variables: Sequence[Variable], parents: Sequence[Variable], train: Batch):
        """`train` has the outputs (see `output_nodes`) and the parents `(N,)` of the training split."""
        super().__init__()
        self.variables, self.nodes = tuple(variables), tuple(name for name in train if name.startswith(_MARK))
        self.flows = nn.ModuleList(_flow(node, parents, train) for node in self.nodes)
        self.register_buffer("spread", _residual_spread(self.nodes, parents, train))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood `(B,)` of every node given the parents, in nats."""
        return {
            node: -flow.log_prob(batch[node], batch)  # pyright: ignore[reportCallIssue]
            for node, flow in zip(self.nodes, self.flows, strict=True)
        }

    def carry(self, prediction: Prediction, factual: Batch, counterfactual: Batch) -> dict[str, Tensor]:
        """The outputs `(B,)` on a factual image, carried from its parents to the counterfactual ones."""
        observed, carried = output_nodes(self.variables, prediction), {}
        for node, flow in zip(self.nodes, self.flows, strict=True):
            assert isinstance(flow, SplineMechanism)
            carried[node] = flow(flow.abduct(observed[node], factual), counterfactual)
        return carried

    def distances(self, prediction: Prediction, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Half the squared distance `(B,)` to the targets by attribute, in units of each output's own spread.

        Log-odds and not probabilities: a target that is all but certain would not be felt any more.
        """
        found: dict[str, Tensor] = {}
        nodes = output_nodes(self.variables, prediction)
        for variable in self.variables:
            distance = [
                0.5 * ((nodes[node] - targets[node]) / self.spread[i]).square()
                for i, node in enumerate(self.nodes)
                if node in _nodes_of(variable)
            ]
            found[variable.name] = torch.stack(distance).sum(dim=0)
        return found


def output_nodes(variables: Sequence[Variable], prediction: Prediction) -> dict[str, Tensor]:
    """One number `(B,)` per node: each label's log-odds against the first, or the predicted number."""
    nodes = {}
    for variable in variables:
        output = prediction[variable.name]
        columns = (output[:, 1:] - output[:, :1]).T if variable.is_discrete else [output]
        nodes |= dict(zip(_nodes_of(variable), columns, strict=True))
    return nodes


def _nodes_of(variable: Variable) -> list[str]:
    if variable.is_discrete:
        return [f"{_MARK}{variable.name}: {label}" for label in variable.labels[1:]]
    return [f"{_MARK}{variable.name}"]


def _flow(node: str, parents: Sequence[Variable], train: Batch) -> SplineMechanism:
    low, high = float(train[node].min()), float(train[node].max())
    room = _ROOM * (high - low) + 1e-3
    declared = Variable(name=node, kind="continuous", range=(low - room, high + room), mechanism="spline")
    flow = SplineMechanism(declared, parents, SplineConfig())
    flow.calibrate(train)
    return flow


def _residual_spread(nodes: Sequence[str], parents: Sequence[Variable], train: Batch) -> Tensor:
    """Standard deviation of every node about its linear regression on the parents."""
    encoder = ParentEncoder(parents)
    encoder.calibrate(train)
    features = encoder(train).double()
    outputs = torch.stack([train[node] for node in nodes], dim=1).double()
    features, outputs = features - features.mean(dim=0), outputs - outputs.mean(dim=0)
    weight = torch.linalg.lstsq(features, outputs, driver="gelsd").solution  # one-hot columns are dependent
    return (outputs - features @ weight).square().mean(dim=0).sqrt().clamp_min(1e-6).float()
