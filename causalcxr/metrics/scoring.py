"""Shows an evaluator the factual images, the model's counterfactuals and the references, batch by batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causalcxr.metrics.amplification import Population, Trial
from causalcxr.metrics.truth import Truth
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.values import Batch

__all__ = ["Scored", "importance_weights", "join_trials", "score_batch", "score_images"]


MARGINAL_DRAWS = 512  # training rows that stand for a marginal


@dataclass(frozen=True)
class Scored:
    """What an evaluator says of a batch of images: predictions, features `(B, F)`; with their attributes."""

    prediction: Prediction
    features: Tensor
    labels: Batch


@torch.no_grad()
def score_images(evaluator: Predictor, images: Sequence[Tensor], labels: Sequence[Batch]) -> list[Scored]:
    """All sets of images in one pass, rounded to 8 bits as the evaluator knows images. Results on the CPU."""
    device = evaluator.temperature.device
    joined = torch.cat([image.to(device) for image in images])
    features = evaluator.features((255 * joined).round() / 255)
    predicted = evaluator.predict(features)
    size = len(images[0])
    names = [variable.name for variable in evaluator.variables]
    return [
        Scored(
            {name: predicted[name][i * size : (i + 1) * size].cpu() for name in names},
            features[i * size : (i + 1) * size].cpu(),
            {name: label[name].cpu() for name in names},
        )
        for i, label in enumerate(labels)
    ]


@torch.no_grad()
def score_batch(
    scm: StructuralCausalModel,
    evaluator: Predictor,
    abduction: Abduction,
    values: Mapping[str, Tensor],
    truth: Truth | None,
    ids: Tensor,
) -> dict[str, Scored]:
    """The evaluator on the factual images (`factual`), and for each intervention on the model's counterfactuals
    (its name) and on the exact ones (`exact NAME`, simulated data only).

    Direct effects: all other attributes, descendants too, keep their values, and should be seen to keep them.
    """
    image = scm.graph.image
    assert image is not None
    interventions = {name: {name: value} for name, value in values.items()}
    made = scm.counterfactual(abduction, list(interventions.values()), effect="direct")
    batches = {"factual": dict(abduction.factual)} | dict(zip(interventions, made, strict=True))
    if truth is not None:
        for name, do in interventions.items():
            exact = truth.images(ids, do, "direct").to(abduction.factual[image])
            batches[f"exact {name}"] = batches[name] | {image: exact}
    seen = score_images(evaluator, [b[image] for b in batches.values()], list(batches.values()))
    return dict(zip(batches, seen, strict=True))


def join_trials(
    scm: StructuralCausalModel, parts: Sequence[Mapping[str, Scored]], names: Sequence[str], train: Batch
) -> list[Trial]:
    """The batches put together: one trial per intervention."""
    joined = {key: _join([part[key] for part in parts]) for key in parts[0]}
    trials = []
    for name in names:
        reference = joined.get(f"exact {name}")
        if reference is None:
            weights = importance_weights(scm, name, joined["factual"].labels, train)
            plain = joined["factual"]
            reference = Population(plain.prediction, plain.features, plain.labels, weights)
        trials.append(Trial(name, joined[name], reference, joined["factual"]))
    return trials


@torch.no_grad()
def importance_weights(scm: StructuralCausalModel, name: str, batch: Batch, train: Batch) -> np.ndarray:
    """Weights `(N,)`, mean 1, that turn the observed population into that of the direct effect of do(name = v).

    There `v` is drawn from its marginal `q` whatever the other attributes are, and these keep their joint law:
    `w = q(v) / p(v | all others)`. By Bayes' rule, with `r(v) = p(v | parents) / q(v) * prod_c p(c | its parents)`
    over the children `c`, that is `mean_j r(v_j) / r(v)` over draws `v_j` from the marginal.
    """
    values = {a: batch[a].to(scm.device) for a in scm.graph.attributes}
    marginal = train[name].to(scm.device)
    rows = torch.linspace(0, len(marginal) - 1, min(MARGINAL_DRAWS, len(marginal))).round().long()
    n, m = len(values[name]), len(rows)
    repeated = {a: value.repeat_interleave(m) for a, value in values.items()}
    other = _log_ratio(scm, name, repeated | {name: marginal[rows].repeat(n)}, train).view(n, m)
    log_weight = other.logsumexp(dim=1) - math.log(m) - _log_ratio(scm, name, values, train)
    weights = log_weight.double().exp().cpu().numpy()
    return weights / weights.mean()


def _log_ratio(scm: StructuralCausalModel, name: str, values: Batch, train: Batch) -> Tensor:
    """`log r` of each row `(N,)`: what of the joint law depends on `name`, over its marginal."""
    graph = scm.graph
    children = [c for c in graph.attributes if name in graph[c].parents]
    total = torch.zeros(len(values[name]), device=scm.device)
    for child in children:
        total = total + scm.mechanism(child).log_prob(values[child], values)
    parents = [parent.name for parent in graph.parents(name)]
    if parents:  # a root's law is its marginal
        own = scm.mechanism(name).log_prob(values[name], values)
        total = total + own - _log_marginal(scm, name, values[name], train, parents)
    return total


def _log_marginal(
    scm: StructuralCausalModel, name: str, value: Tensor, train: Batch, parents: Sequence[str]
) -> Tensor:
    """`log q(v)`: a label's share in training; of a number the mean of its density over the training parents."""
    if scm.graph[name].is_discrete:
        shares = torch.bincount(train[name], minlength=len(scm.graph[name].labels)) / len(train[name])
        return shares.to(value.device).log()[value]
    n = len(train[name])
    rows = torch.linspace(0, n - 1, min(MARGINAL_DRAWS, n)).round().long()
    pairs = {p: train[p][rows].to(value.device).repeat(len(value)) for p in parents}
    density = scm.mechanism(name).log_prob(value.repeat_interleave(len(rows)), pairs)
    return density.view(len(value), len(rows)).logsumexp(dim=1) - math.log(len(rows))


def _join(parts: Sequence[Scored]) -> Population:
    prediction = {name: torch.cat([s.prediction[name] for s in parts]) for name in parts[0].prediction}
    labels = {name: torch.cat([s.labels[name] for s in parts]) for name in parts[0].labels}
    return Population(prediction, torch.cat([s.features for s in parts]), labels)
