"""A predictor's outputs as variables of the graph: what it would have said of the counterfactual image.

Every output `s` (a log-odds, or a predicted number) is a node whose parents are all the image's parents,
`s = f(w, parents)`, with the conditional spline flow that continuous attributes have. Fitted on the training
split; then abduct `w` from the factual image's output, act on the parents, predict `s*`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.predictors.predictor import Prediction
from causalcxr.values import Batch

__all__ = ["OutputModel", "join_outputs", "split_outputs"]

_ROOM = 0.5  # of the outputs' range, added on both sides: a counterfactual may leave the observed range


class OutputModel(nn.Module):
    """A conditional flow per output. `nodes` are the outputs' names, as `split_outputs` gives them."""

    def __init__(self, variables: Sequence[Variable], parents: Sequence[Variable], train: Batch):
        """`train` has the outputs `(N,)` and the parents of the training split, for the flows' ranges."""
        super().__init__()
        self.variables, self.nodes = tuple(variables), tuple(name for name in train if name.startswith(_MARK))
        flows = []
        for node in self.nodes:
            low, high = float(train[node].min()), float(train[node].max())
            room = _ROOM * (high - low) + 1e-3
            declared = Variable(name=node, kind="continuous", range=(low - room, high + room), mechanism="spline")
            flow = SplineMechanism(declared, parents, SplineConfig())
            flow.calibrate(train)
            import itertools

            key = sum(train[p.name].long() * 1000**i if p.is_discrete else 0 for i, p in enumerate(parents))
            ss = torch.stack([train[node][key == k].var() * (key == k).sum() for k in key.unique()]).sum() / len(
                key
            )
            flow.residual = ss.sqrt()
            flows.append(flow)
        self.flows = nn.ModuleList(flows)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood `(B,)` of every node given the parents, in nats."""
        return {
            node: -flow.log_prob(batch[node], batch)  # pyright: ignore[reportCallIssue]
            for node, flow in zip(self.nodes, self.flows, strict=True)
        }

    def scales(self):
        found = {}
        for v in self.variables:
            if v.is_discrete:
                found[v.name] = torch.stack(
                    [f.residual for n, f in zip(self.nodes, self.flows) if n.startswith(f"{_MARK}{v.name}: ")]
                )
        return found

    def carry(self, prediction: Prediction, factual: Batch, counterfactual: Batch) -> Prediction:
        """The prediction of a factual image, carried from the factual parents to the counterfactual ones."""
        nodes, carried = split_outputs(self.variables, prediction), {}
        for node, flow in zip(self.nodes, self.flows, strict=True):
            assert isinstance(flow, SplineMechanism)
            carried[node] = flow(flow.abduct(nodes[node], factual), counterfactual)
        return join_outputs(self.variables, carried)


_MARK = "output of "


def split_outputs(variables: Sequence[Variable], prediction: Prediction) -> dict[str, Tensor]:
    """One number `(B,)` per node: each label's log-odds against the first, or the predicted number."""
    nodes = {}
    for variable in variables:
        output = prediction[variable.name]
        if variable.is_discrete:
            for i, label in enumerate(variable.labels[1:], start=1):
                nodes[f"{_MARK}{variable.name}: {label}"] = output[:, i] - output[:, 0]
        else:
            nodes[f"{_MARK}{variable.name}"] = output
    return nodes


def join_outputs(variables: Sequence[Variable], nodes: Mapping[str, Tensor]) -> Prediction:
    """The inverse of `split_outputs`; the first label's logit is 0."""
    prediction: Prediction = {}
    for variable in variables:
        if variable.is_discrete:
            odds = [nodes[f"{_MARK}{variable.name}: {label}"] for label in variable.labels[1:]]
            prediction[variable.name] = torch.stack([torch.zeros_like(odds[0]), *odds], dim=1)
        else:
            prediction[variable.name] = nodes[f"{_MARK}{variable.name}"]
    return prediction
