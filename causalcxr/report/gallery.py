"""What the galleries show: a few subjects, their reconstructions and their counterfactuals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Graph
from causalcxr.mechanisms.image import Inferred
from causalcxr.metrics.truth import Truth
from causalcxr.randomness import Draws
from causalcxr.report.figures import (
    Band,
    bands_figure,
    changes_band,
    counterfactual_grid,
    difference_limit,
    save_png,
)
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.values import Batch, caption, describe

__all__ = [
    "Gallery",
    "choose_rows",
    "draw_contrast",
    "draw_gallery",
    "draw_reconstructions",
    "draw_samples",
    "make_gallery",
]

SAMPLE_COLUMNS = 12


@dataclass(frozen=True)
class Gallery:
    """Subjects, images float in [0, 1]. `exact` has the true batches (image included), where they are known."""

    factual: Mapping[str, Tensor]
    interventions: Sequence[Mapping[str, Any]]
    counterfactuals: Sequence[Mapping[str, Tensor]]
    exact: Sequence[Mapping[str, Tensor]] | None
    mean: Tensor
    redrawn: Tensor


def choose_rows(graph: Graph, batch: Batch, count: int) -> list[int]:
    """`count` row numbers that show as many combinations of labels as there is room for."""
    discrete = [batch[name] for name in graph.attributes if graph[name].is_discrete]
    if not discrete:
        return list(range(count))
    labels = torch.stack(discrete, dim=1).numpy()
    _, first = np.unique(labels, axis=0, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    spread = np.sort(first)[np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]
    return [int(row) for row in [*spread, *rest][:count]]


@torch.no_grad()
def make_gallery(
    scm: StructuralCausalModel,
    abduction: Abduction,
    inferred: Inferred,
    interventions: Sequence[Mapping[str, Any]],
    truth: Truth | None,
    ids: Tensor,
    seed: int,
) -> Gallery:
    """Every intervention on the abducted rows (total effect), decoded together; exact answers where known."""
    assert scm.graph.image is not None
    image = abduction.factual[scm.graph.image]
    made = scm.counterfactual(abduction, list(interventions)) if interventions else []
    exact = None
    if truth is not None:
        exact = [
            truth.attributes(ids, do) | {scm.graph.image: truth.images(ids, do, "total")} for do in interventions
        ]
    redrawn = inferred.redrawn(Draws(seed, image.device))
    return Gallery(abduction.factual, interventions, made, exact, inferred.mean, redrawn)


def draw_gallery(graph: Graph, gallery: Gallery, folder: Path) -> list[tuple[str, Path]]:
    """One picture per subject, all on one scale of differences: heading and file of each.

    An intervention that sets what the subject has already is left out.
    """
    assert graph.image is not None
    batches = [gallery.factual, *gallery.counterfactuals]
    truths = None if gallery.exact is None else [gallery.factual, *gallery.exact]
    titles = ["factual", *(_title(graph, do) for do in gallery.interventions)]
    subjects = range(len(gallery.mean))
    groups = [batches] if truths is None else [batches, truths]
    limit = difference_limit([[batch[graph.image][i] for batch in group] for group in groups for i in subjects])
    drawn = []
    for i in subjects:
        shown = [j for j, batch in enumerate(batches) if j == 0 or _changes(graph, gallery.factual, batch, i)]
        made, exact = ([of[j] for j in shown] for of in (batches, truths or batches))
        figure = counterfactual_grid(
            [batch[graph.image][i] for batch in made],
            [titles[j] for j in shown],
            [caption(graph, batch, i) for batch in made],
            None if truths is None else [batch[graph.image][i] for batch in exact],
            None if truths is None else [caption(graph, batch, i) for batch in exact],
            limit,
        )
        path = folder / f"counterfactuals_{i + 1}.png"
        save_png(figure, path)
        drawn.append((f"Subject {i + 1}: {_describe_row(graph, gallery.factual, i)}", path))
    for old in set(folder.glob("counterfactuals_*.png")) - {path for _, path in drawn}:
        old.unlink()  # of an evaluation with a larger gallery
    return drawn


def draw_contrast(graph: Graph, galleries: Mapping[str, Gallery], row: int, path: Path) -> None:
    """One subject under every intervention: a pair of rows for each run, then the exact answers if known."""
    assert graph.image is not None
    first = next(iter(galleries.values()))
    shown = [j for j, batch in enumerate(first.counterfactuals) if _changes(graph, first.factual, batch, row)]
    factual = first.factual[graph.image][row]
    lines = {
        title: [factual, *(gallery.counterfactuals[j][graph.image][row] for j in shown)]
        for title, gallery in galleries.items()
    }
    if first.exact is not None:
        lines["exact"] = [factual, *(first.exact[j][graph.image][row] for j in shown)]
    limit = difference_limit(list(lines.values()))
    bands = [band for title, line in lines.items() for band in (Band(title, line), changes_band(line, limit))]
    titles = ["factual", *(_title(graph, first.interventions[j]) for j in shown)]
    save_png(bands_figure(bands, titles), path)


def draw_reconstructions(graph: Graph, gallery: Gallery, path: Path) -> None:
    """Factual images, the decoder's mean, mean with redrawn pixel noise, and what the mean has lost."""
    assert graph.image is not None
    factual = gallery.factual[graph.image]
    lost = [255 * (mean - image).mean(dim=0).cpu() for mean, image in zip(gallery.mean, factual, strict=True)]
    limit = max(1.0, float(np.ceil(np.quantile(torch.stack(lost).abs().numpy(), 0.995))))
    captions = [caption(graph, gallery.factual, i) for i in range(len(factual))]
    bands = [
        Band("factual", list(factual), captions),
        Band("no pixel noise", list(gallery.mean)),
        Band("redrawn", list(gallery.redrawn)),
        Band("lost", [difference.numpy() for difference in lost], limit=limit),
    ]
    save_png(bands_figure(bands), path)


def draw_samples(graph: Graph, model: Batch, data: Batch, path: Path) -> None:
    """Draws from the model above as many real rows, each with its attributes."""
    bands = []
    for label, batch in (("model", model), ("data", data)):
        assert graph.image is not None
        images = batch[graph.image]
        for start in range(0, len(images), SAMPLE_COLUMNS):
            rows = range(start, min(start + SAMPLE_COLUMNS, len(images)))
            bands.append(Band(label, [images[i] for i in rows], [caption(graph, batch, i) for i in rows]))
    save_png(bands_figure(bands), path)


def _describe_row(graph: Graph, batch: Batch, row: int) -> str:
    return describe(graph, {name: batch[name][row] for name in graph.attributes})


def _title(graph: Graph, do: Mapping[str, Any]) -> str:
    return f"do({describe(graph, do)})"


def _changes(graph: Graph, factual: Batch, batch: Batch, row: int) -> bool:
    return any(batch[name][row] != factual[name][row] for name in graph.attributes)
