"""Encoding is not use: what each layer holds of the group, and what is left of the disparity without it.

For the probes test subjects are put into groups by the toss of a coin: the finding does not tell the group. The
direction that is erased comes from the same subjects with and without the bias, so that it holds nothing else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.bias.films import Films
from causalcxr.bias.training import log_odds
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.auroc import auroc
from causalcxr.predictors.predictor import NetworkPredictor

__all__ = ["LayerFound", "encoding", "layers_of"]

VARIANCE = 0.99  # of the features that the principal components keep
PERMUTATIONS = 5
FOLDS = 5  # of a probe
_RANK = 1e-9  # of the largest eigenvalue: a smaller one is rounding
_LARGEST_MAP = 32  # pixels a side; a larger map is averaged down to it
_SKIPPED = (nn.Conv2d, nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm, nn.Dropout, nn.Identity, nn.Flatten)


@dataclass(frozen=True)
class LayerFound:
    """One layer: cross-validated AUROC of linear probes, and the network's answers with the group erased there.

    `group_floor`: the largest AUROC of the group among permuted labels. `shift`, `pair_gap`: under do(group = B)
    from do(group = A), as the network stands; `erased_*`: with the group's direction taken out of this layer.
    """

    layer: str
    components: int
    group: float
    finding: float
    group_floor: float
    shift: float
    pair_gap: float
    accuracy: float
    erased_shift: float
    erased_pair_gap: float
    erased_accuracy: float


def layers_of(trunk: nn.Module) -> list[tuple[str, nn.Module]]:
    """What a trunk applies one after the other, without what only prepares the next (convolutions, norms)."""
    children = [(name, child) for name, child in trunk.named_children() if not isinstance(child, nn.Identity)]
    if len(children) == 1 and list(children[0][1].children()):
        return layers_of(children[0][1])
    kept = [(name, child) for name, child in children if not isinstance(child, _SKIPPED)]
    return kept or [("output", trunk)]


def encoding(model: NetworkPredictor, films: Films, bias: str, rows: int, seed: int = 0) -> list[LayerFound]:
    """Every layer of a network, on `rows` test subjects with and without the bias `films.biased[bias]`.

    Directions are fitted on the first half of the subjects, disparities measured on the second.
    """
    test = films.some(rows)
    finding, group = films.finding[test], films.group(0.5)[test]
    plain, biased = (torch.from_numpy(images[test]) for images in (films.plain, films.biased[bias]))
    own = torch.where(torch.from_numpy(group)[:, None, None, None], biased, plain)
    fitted, left = slice(0, len(test) // 2), slice(len(test) // 2, None)
    both, which = torch.cat([plain[fitted], biased[fitted]]), np.repeat([False, True], len(test) // 2)
    before = [_scores(model, images[left]) for images in (plain, biased)]
    found = []
    for name, layer in _used_layers(model, own[:2]):
        components, _ = _components(_features(model, layer, own), VARIANCE)
        with _erased(layer, _direction(_features(model, layer, both), which)):
            after = [_scores(model, images[left]) for images in (plain, biased)]
        facts = [_answers(scores, finding[left]) for scores in (before, after)]
        found.append(
            LayerFound(
                f"{name} {type(layer).__name__.strip('_').lower()}",
                components.shape[1],
                _probe(components, group, seed),
                _probe(components, finding, seed),
                max(_probe(components, _permuted(group, seed + i), seed) for i in range(PERMUTATIONS)),
                *facts[0],
                *facts[1],
            )
        )
    return found


def _answers(scores: Sequence[np.ndarray], finding: np.ndarray) -> tuple[float, float, float]:
    """Mean shift, pair gap, and accuracy over both versions of everyone."""
    plain, biased = scores
    gaps = [(biased[of] > 0).mean() - (plain[of] > 0).mean() for of in (finding, ~finding)]
    right = [((scores > 0) == finding).mean() for scores in (plain, biased)]
    return float((biased - plain).mean()), float(np.mean(gaps)), float(np.mean(right))


@torch.no_grad()
def _scores(model: NetworkPredictor, images: Tensor) -> np.ndarray:
    parts = [log_odds(model, image_to_float(part)) for part in images.split(256)]
    return torch.cat(parts).double().numpy()


@torch.no_grad()
def _used_layers(model: NetworkPredictor, images: Tensor) -> list[tuple[str, nn.Module]]:
    """The layers that are called once and give a tensor; the trunk's output if none does."""
    found = []
    for name, layer in layers_of(model.trunk):
        seen: list[object] = []
        handle = layer.register_forward_hook(lambda module, given, output, seen=seen: seen.append(output))
        with torch.no_grad():
            model.features(image_to_float(images))
        handle.remove()
        if len(seen) == 1 and isinstance(seen[0], Tensor):
            found.append((name, layer))
    return found or [("output", model.trunk)]


@torch.no_grad()
def _features(model: NetworkPredictor, layer: nn.Module, images: Tensor) -> np.ndarray:
    """The layer's output `(N, D)`, maps averaged down."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(_flat(output)))
    try:
        for part in images.split(256):
            model.features(image_to_float(part))
    finally:
        handle.remove()
    return torch.cat(seen).double().numpy()


def _flat(output: Tensor) -> Tensor:
    return _smaller(output).flatten(1)


def _smaller(output: Tensor) -> Tensor:
    """A copy, averaged over squares of pixels where a map is large."""
    factor = _factor(output)
    return F.avg_pool2d(output, factor, ceil_mode=True) if factor > 1 else output.clone()


def _factor(output: Tensor) -> int:
    return -(-max(output.shape[2:]) // _LARGEST_MAP) if output.ndim == 4 else 1


def _components(features: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Principal components that keep this share of the variance: scores `(N, K)` and unit directions `(D, K)`."""
    centred = features - features.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    if values[0] <= 0:  # a layer that is the same for everyone
        return np.zeros((len(features), 1)), np.zeros((features.shape[1], 1))
    real = int((values > _RANK * values[0]).sum())
    kept = min(real, int(np.searchsorted(np.cumsum(values) / values.sum(), variance)) + 1)
    spread = np.sqrt(values[:kept])
    return vectors[:, :kept] * spread, centred.T @ (vectors[:, :kept] / spread)


def _probe(components: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """AUROC of a logistic regression on folds that it was not fitted on."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    chance = cross_val_predict(model, components, labels, cv=folds, method="decision_function")
    return auroc(np.asarray(chance), labels)


def _permuted(labels: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(labels)


def _direction(features: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, and a, b of the least-squares erasure `x - a b'(x - mean)` of a binary label (Belrose et al. 2023).

    `a` is the covariance with the label, `b` is `S^-1 a / (a' S^-1 a)`, with a shrunk covariance S (Ledoit
    and Wolf 2004), for there are more features than rows. A direction of little variance may be one that the
    network uses, so none is left out.
    """
    scores, directions = _components(features, 1.0)
    covariance, _ = ledoit_wolf(scores)
    against = scores.T @ (group - group.mean()) / len(group)
    solved = np.linalg.lstsq(covariance, against, rcond=None)[0]
    scale = against @ solved
    solved = solved / scale if scale > 0 else solved
    return features.mean(0), directions @ against, directions @ solved


@contextmanager
def _erased(layer: nn.Module, direction: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Iterator[None]:
    """The layer's output without the group's direction."""
    mean, a, b = (torch.from_numpy(part).float() for part in direction)

    def hook(module: nn.Module, given: object, output: Tensor) -> Tensor:
        small = _smaller(output)
        change = ((small.flatten(1) - mean) @ b)[:, None] * a
        change = change.view(small.shape)
        if (factor := _factor(output)) > 1:
            high, wide = output.shape[2:]
            change = change.repeat_interleave(factor, 2).repeat_interleave(factor, 3)[..., :high, :wide]
        return output - change

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
