"""Embeddings of a cohort's images, `(N, D)`: of a predictor, a module or any function, whole or at one layer.

Beside the images as they are, those of the same patients under every combination of the values of some
attributes, from a model or, of simulated patients, from the simulator: what an embedding is without these
attributes is the mean over the combinations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from causalcxr.data.cohort import Split
from causalcxr.graph import Graph
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.truth import Truth
from causalcxr.predictors.adapters import call_model
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import seed_of
from causalcxr.scm import StructuralCausalModel
from causalcxr.simulator import graph as simulated_graph
from causalcxr.support.errors import ConfigError, DataError, nearest
from causalcxr.values import Batch, encode_intervention

__all__ = [
    "Embedder",
    "combinations_of",
    "counterfactual_embeddings",
    "embed_split",
    "embedder_of",
    "values_to_average",
]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a number, in the training split
_POOLED = {2: (), 3: (1,), 4: (2, 3)}  # what is averaged of (B, D), (B, tokens, D) and (B, D, H, W)
_DEEPEST = 1  # dots in the layers' names that are listed where none is like the one asked for

Values = Mapping[str, Sequence[Any]]  # by attribute, labels or numbers
Progress = Callable[[str, int], None]  # a note, and how many patients' images are done


@dataclass(frozen=True)
class Embedder:
    """Images `(B, C, H, W)` in [0, 1] to their embeddings `(B, D)`, float32 on the CPU; see `embedder_of`."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images)


def embedder_of(model: Any, layer: str = "") -> Embedder:
    """What embeds a batch of images. A module is put into eval mode and stays in it, on the device where it is.

    `model`: a `Predictor` gives its features; any other module or function takes images `(B, C, H, W)` in [0,
    1] and returns `(B, D)`, or tokens `(B, T, D)` or maps `(B, D, H, W)`, which are averaged. `layer`: instead,
    what the submodule of this dotted name gives when it is last called; the whole model is run for it. A
    network that takes other channels, sizes or levels is put into an `AdaptedPredictor(variables, network, {},
    ...)`, and its layers are then called `model.NAME`. Raises ConfigError: no function, or no such layer. What
    it gives raises DataError: the model fails, or returns something else.
    """
    if isinstance(model, Embedder) and not layer:
        return model
    if not callable(model):
        raise ConfigError(f"the model is {type(model).__name__}; expected a function from images to embeddings")
    if isinstance(model, nn.Module):
        model.eval()  # an embedding must not depend on what else is in the batch
    if layer:
        module, inner = _with_layer(model, layer)
        return Embedder(lambda images: _at_layer(module, inner, layer, images))
    function = model.features if isinstance(model, Predictor) else model
    return Embedder(lambda images: _pooled(call_model(function, _placed(model, images)), len(images), "the model"))


def embed_split(
    model: Any, split: Split, layer: str = "", batch_size: int = 256, progress: Progress | None = None
) -> np.ndarray:
    """The embeddings `(N, D)`, float32, of all images of a split; `model`, `layer`: see `embedder_of`.

    Raises DataError: no images, or embeddings that are not finite.
    """
    _refuse_no_images(split)
    embed = embedder_of(model, layer)

    def parts() -> Iterable[np.ndarray]:
        for images in split.images(batch_size):
            yield embed(image_to_float(images)).numpy()
            if progress is not None:
                progress("", len(images))

    return _checked(_stack(parts(), len(split)), split.ids)


@torch.no_grad()
def counterfactual_embeddings(
    scm: StructuralCausalModel | None,
    split: Split,
    embed: Any,
    values: Values,
    exact: Truth | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """The embeddings `(N, G, D)`, float32, of every patient under the G combinations `combinations_of(values)`.

    The direct effect: all other attributes stay as they are. Images have 8 bits, as real ones do. `embed`: what
    `embedder_of` gives, or a model without a layer. `exact`: the simulator behind the cohort, in place of
    `scm`. `batch_size`: images that are made at once, of all combinations together; every patient is abducted
    once. Raises GraphError: an unknown attribute or value. Raises DataError: no images, or embeddings that are
    not finite.
    """
    _refuse_no_images(split)
    for one in combinations_of(values):
        encode_intervention(split.graph, one, 1)
    distinct, which = _distinct(values, _causes(split.graph, exact))
    embedder, at_once = embedder_of(embed), max(1, batch_size // len(distinct))

    def parts() -> Iterable[np.ndarray]:
        for start in range(0, len(split), at_once):
            rows = np.arange(start, min(start + at_once, len(split)))
            sets = _made(scm, split, rows, distinct, exact, seed)
            found = embedder((255 * torch.cat(sets)).round() / 255)
            yield found.view(len(sets), len(rows), -1)[which].transpose(0, 1).numpy()
            if progress is not None:
                progress("", len(rows))

    return _checked(_stack(parts(), len(split)), split.ids)


def values_to_average(graph: Graph, attributes: Sequence[str], train: Batch) -> dict[str, list[Any]]:
    """The values to average over: all labels of an attribute, or quantiles of a number in the training split.

    Raises ConfigError: no attribute of the graph.
    """
    found: dict[str, list[Any]] = {}
    for name in attributes:
        if name not in graph.attributes:
            raise ConfigError(f"no attribute '{name}' to average over; {nearest(name, graph.attributes)}")
        if graph[name].is_discrete:
            found[name] = list(graph[name].labels)
        else:
            quantiles = np.quantile(train[name].double().cpu().numpy(), QUANTILES)
            found[name] = list(dict.fromkeys(quantiles.tolist()))
    return found


def combinations_of(values: Values) -> list[dict[str, Any]]:
    """All combinations of the attributes' values, those of the last attribute varying fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _distinct(values: Values, causes: Sequence[str]) -> tuple[list[dict[str, Any]], list[int]]:
    """The combinations of those attributes that change the image, and which of them each of all comes to."""
    distinct = combinations_of({name: chosen for name, chosen in values.items() if name in causes})
    parts = [{name: one[name] for name in one if name in causes} for one in combinations_of(values)]
    return distinct, [distinct.index(part) for part in parts]


def _causes(graph: Graph, exact: Truth | None) -> list[str]:
    """The attributes with an edge into the image: of the graph, or of the simulator under the graph's names."""
    truth = graph if exact is None else simulated_graph(exact.knobs)
    assert graph.image is not None and truth.image is not None
    parents = truth[truth.image].parents
    return [name for name in graph.attributes if (exact.columns[name] if exact else name) in parents]


def _made(
    scm: StructuralCausalModel | None,
    split: Split,
    rows: np.ndarray,
    combinations: Sequence[Mapping[str, Any]],
    exact: Truth | None,
    seed: int,
) -> list[Tensor]:
    """The images `(B, C, H, W)` of some rows under each combination."""
    if exact is not None:
        return [exact.images(torch.from_numpy(split.ids[rows]), one) for one in combinations]
    if scm is None:
        raise ConfigError("counterfactual embeddings: expected a model, or exact=Truth of a simulated cohort")
    assert scm.graph.image is not None
    abduction = scm.abduct(split.batch(rows), seed_of(seed, split.name, int(rows[0])))
    made = scm.counterfactual(abduction, list(combinations), "direct")
    return [batch[scm.graph.image] for batch in made]


def _with_layer(model: Any, layer: str) -> tuple[nn.Module, nn.Module]:
    """The model, which must be a module, and its layer."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"layer '{layer}': the model is a function, which has none; return the module itself")
    try:
        return model, model.get_submodule(layer)
    except AttributeError:
        raise ConfigError(f"the model has no layer '{layer}'; {_layer_hint(model, layer)}") from None


def _layer_hint(model: nn.Module, layer: str) -> str:
    """The nearest of all layers; where none is alike the outer ones, for there may be hundreds."""
    names = [name for name, _ in model.named_modules() if name]
    if not get_close_matches(layer, names, n=1, cutoff=0.6):
        names = [name for name in names if name.count(".") <= _DEEPEST]
    return nearest(layer, names)


def _at_layer(model: nn.Module, inner: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What one layer gives while the model looks at the images, pooled."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output  # attention gives weights too
        found[:] = [_pooled(first, len(images), f"layer '{layer}'")]  # at once: what follows may be done in place

    handle = inner.register_forward_hook(keep)
    try:
        call_model(model, _placed(model, images))
    finally:
        handle.remove()
    if not found:
        raise ConfigError(f"layer '{layer}' of the model is not used; choose one that the images pass through")
    return found[0]


def _placed(model: Any, images: Tensor) -> Tensor:
    """The images where a module's weights are, and as precise; on the CPU for a function, whoever made them."""
    if not isinstance(model, nn.Module):
        return images.cpu()
    tensors = (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())
    weight = next(tensors, images)
    return images.to(weight.device, weight.dtype)


def _pooled(found: Any, n: int, what: str) -> Tensor:
    """Embeddings `(n, D)` of what a model or a layer returned; a tensor of its own, float32 on the CPU."""
    is_array = isinstance(found, np.ndarray) and found.dtype.kind in "fiub"
    shape = list(found.shape) if is_array or isinstance(found, Tensor) else []
    if len(shape) not in _POOLED or shape[0] != n or 0 in shape:
        got = f"{type(found).__name__} {tuple(getattr(found, 'shape', ()))}".removesuffix(" ()")
        raise DataError(
            f"{what} gives {got} for {n} images; expected a tensor or array (images, numbers), (images, tokens, "
            "numbers) or (images, numbers, height, width)"
        )
    with np.errstate(over="ignore"):  # what float32 can't hold is infinite, and refused as such
        tensor = found.detach() if isinstance(found, Tensor) else torch.from_numpy(found.astype(np.float32))
    tensor, averaged = tensor.to(torch.float32), _POOLED[len(shape)]
    return tensor.mean(dim=averaged).cpu() if averaged else tensor.cpu().clone()


def _stack(parts: Iterable[np.ndarray], n: int) -> np.ndarray:
    """All parts, `(n, ...)`, each written into its place: they are not held twice."""
    found, start = np.empty((n, 0), np.float32), 0
    for part in parts:
        if start == 0:
            found = np.empty((n, *part.shape[1:]), np.float32)
        if part.shape[1:] != found.shape[1:]:
            raise DataError(f"the model gives {found.shape[-1]} numbers for an image, and then {part.shape[-1]}")
        found[start : start + len(part)] = part
        start += len(part)
    return found


def _checked(found: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Raises DataError: numbers that are not finite."""
    bad = np.flatnonzero(~np.isfinite(found).all(axis=tuple(range(1, found.ndim))))
    if len(bad):
        raise DataError(
            f"embeddings: {len(bad):,} of {len(found):,} rows have numbers that are not finite, first that of id "
            f"{ids[bad[0]]}; look at what the model makes of that image"
        )
    return found


def _refuse_no_images(split: Split) -> None:
    if split.graph.image is None or not len(split):
        why = "is empty" if split.graph.image else f"is of graph '{split.graph.name}', which has no image"
        raise DataError(f"split '{split.name}' {why}; there is nothing to embed")
