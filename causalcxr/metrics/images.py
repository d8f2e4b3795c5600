"""All image metrics of one batch, row by row: one abduction, every intervention decoded in one pass.

Values are keyed by tuples such as `("exact", "model", "age", "error")`, which `summary.py` turns into statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from causalcxr.interventions import draw_other_values
from causalcxr.mechanisms.image import Inferred
from causalcxr.mechanisms.likelihood import bits_per_dimension
from causalcxr.metrics import exact
from causalcxr.metrics.composition import composition, reversibility
from causalcxr.metrics.entries import Rows
from causalcxr.metrics.truth import Truth
from causalcxr.randomness import Draws, seed_of
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.values import Batch

__all__ = ["measure_exact", "measure_images"]


@dataclass(frozen=True)
class Drawn:
    """The batch with one attribute set to another value, for each of `names`, and the images that this gave."""

    names: tuple[str, ...]
    values: Mapping[str, Tensor]
    batches: Sequence[Mapping[str, Tensor]]


@torch.no_grad()
def measure_images(
    scm: StructuralCausalModel,
    abduction: Abduction,
    inferred: Inferred,
    train: Batch,
    truth: Truth | None,
    ids: Tensor,
    cycles: int,
    draws: int,
    seed: int,
) -> Rows:
    """Every image metric of the abducted rows. `train` has the training attributes, `ids` the subjects' ids.

    `draws`: abductions whose mean effect is the expected one, compared with the truth beside that of one draw.
    """
    assert scm.graph.image is not None
    image, mechanism = abduction.factual[scm.graph.image], scm.image_mechanism
    noise, bound = inferred.noise, inferred.bound
    rows: Rows = {("image", "training_loss"): inferred.loss}
    if bound is not None:
        rows["image", "bits_per_dimension"] = bits_per_dimension(-bound, tuple(image.shape[1:]))
    composed = composition(mechanism, image, abduction.factual, noise, cycles, Draws(seed + 1, scm.device))
    rows |= {("composition", mode, str(cycle)): values for (mode, cycle), values in composed.items()}
    drawn = _intervene(scm, abduction, train, seed)
    rows |= _measure_reversibility(scm, abduction, drawn, seed)
    effects = _effects(drawn.batches, image, scm.graph.image)
    rows |= _sizes("model", drawn.names, effects)
    if truth is not None:
        factual = truth.images(ids)
        answers = [truth.images(ids, {name: drawn.values[name]}) - factual for name in drawn.names]
        true_effects = torch.stack(answers, dim=1).to(effects)
        rows |= _sizes("exact", drawn.names, true_effects)
        rows |= measure_exact("model", drawn.names, effects, true_effects)
        if draws > 1:
            expected = _expected_effects(scm, abduction, drawn, effects, draws, seed)
            rows |= measure_exact("expected", drawn.names, expected, true_effects)
        rows |= measure_exact("did_nothing", drawn.names, torch.zeros_like(effects), true_effects)
        rows |= measure_exact("exact", drawn.names, true_effects, true_effects)
    return rows


def measure_exact(who: str, names: Sequence[str], effects: Tensor, true_effects: Tensor) -> Rows:
    """Exact error and alpha of effect images `(B, k, C, H, W)`, one for each of `names`, that `who` made."""
    rows: Rows = {}
    alpha, condition = exact.coefficients(effects, true_effects)
    for i, name in enumerate(names):
        rows |= _measure_error(who, name, effects[:, i], true_effects[:, i])
        for j, other in enumerate(names):
            rows["exact", who, name, "alpha", other] = alpha[:, i, j]
    rows["exact", "condition"] = condition
    return rows


def _measure_error(who: str, name: str, effect: Tensor, true_effect: Tensor) -> Rows:
    error, size = exact.error_norms(effect, true_effect)
    relative = exact.relative_error(error, size, effect[0].numel())
    return {
        ("exact", who, name, "error"): torch.stack([error, size], dim=1),
        ("exact", who, name, "error_mean"): relative,
        ("exact", who, name, "error_median"): relative,
    }


def _intervene(scm: StructuralCausalModel, abduction: Abduction, train: Batch, seed: int) -> Drawn:
    """Direct effects: only attributes with an edge into the image have one."""
    assert scm.graph.image is not None
    names = scm.graph[scm.graph.image].parents
    values = draw_other_values(scm.graph, abduction.factual, train, seed)
    batches = scm.counterfactual(abduction, [{name: values[name]} for name in names], effect="direct")
    return Drawn(names, values, batches)


def _effects(batches: Sequence[Mapping[str, Tensor]], image: Tensor, name: str) -> Tensor:
    """Effect images `(B, k, C, H, W)` of k interventions."""
    return torch.stack([batch[name] - image for batch in batches], dim=1)


def _expected_effects(
    scm: StructuralCausalModel, abduction: Abduction, drawn: Drawn, first: Tensor, draws: int, seed: int
) -> Tensor:
    """The mean of the effects over several abductions; `first` are the effects of one that is at hand.

    What an observation leaves open a single draw can only guess; the mean is the best point that a model can give.
    """
    assert scm.graph.image is not None
    if not scm.image_mechanism.draws_noise:
        return first
    image, do = abduction.factual[scm.graph.image], [{name: drawn.values[name]} for name in drawn.names]
    total = first.clone()
    for i in range(1, draws):
        another = scm.abduct(abduction.factual, seed=seed_of(seed, "expected", i))
        total += _effects(scm.counterfactual(another, do, effect="direct"), image, scm.graph.image)
    return total / draws


def _measure_reversibility(scm: StructuralCausalModel, abduction: Abduction, drawn: Drawn, seed: int) -> Rows:
    changed = {v: torch.cat([batch[v] for batch in drawn.batches]) for v in scm.graph.variables}
    copies = len(drawn.names)
    factual = {v: torch.cat([abduction.factual[v]] * copies) for v in scm.graph.variables}
    differences = reversibility(scm, factual, changed, seed + 2).chunk(copies)
    return {("reversibility", name): d for name, d in zip(drawn.names, differences, strict=True)}


def _sizes(who: str, names: Sequence[str], effects: Tensor) -> Rows:
    rows: Rows = {}
    for i, name in enumerate(names):
        rows["effect_size", who, name] = exact.size_in_grey_levels(effects[:, i])
        rows["minimality", who, name] = 255 * effects[:, i].abs().flatten(1).mean(dim=1)
    return rows
