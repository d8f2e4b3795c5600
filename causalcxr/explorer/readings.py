"""What the run's evaluator reads on an image, and how that changes."""

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causalcxr.graph import Graph
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.values import Batch

__all__ = ["TOLERANCE", "quality", "read", "readings"]

TOLERANCE = 0.05  # of a probability, or of a number's range


def quality(graph: Graph, folder: Path) -> dict[str, str]:
    """By attribute how good a run's evaluator is on its test split, in words, as metrics.json has it."""
    measured, found = {}, {}
    with suppress(OSError, ValueError, KeyError):  # not evaluated, or not to be read
        measured = json.loads((folder / "metrics.json").read_text("utf-8"))["metrics"]
    for name in graph.attributes:
        error, auroc = (measured.get(f"classifier/evaluator/{name}/{what}") for what in ("error", "auroc"))
        if error is not None and not graph[name].is_discrete:
            found[name] = f"error {error['value']:.3g} {graph[name].unit}".rstrip()
        elif auroc is not None:
            found[name] = f"AUROC {auroc['value'] / 100:.2f}"
    return found


@torch.no_grad()
def read(evaluator: Predictor, image: Tensor) -> Prediction:
    """The evaluator's prediction of one image `(C, H, W)` in [0, 1]."""
    return evaluator(image[None])


def readings(
    graph: Graph, before: Prediction, after: Prediction, attributes: Batch, moved: Collection[str]
) -> dict[str, dict[str, Any]]:
    """By attribute what is read on the factual and on the counterfactual image.

    Of a number its value; of a discrete attribute the probability of the label that it has in the counterfactual,
    `attributes` `(1,)`. `stays`: neither intervened on nor reached (`moved`), so a change is an error, which the
    page marks from `tolerance` on.
    """
    found = {}
    for name in graph.attributes:
        if name not in before:
            continue
        variable, was, now = graph[name], before[name][0], after[name][0]
        entry: dict[str, Any] = {"name": name, "what": name, "unit": variable.unit, "tolerance": TOLERANCE}
        entry["discrete"] = variable.is_discrete
        if variable.is_discrete:
            label = int(attributes[name][0])
            entry |= {"what": f"P({name} = {variable.labels[label]})", "unit": ""}
            was, now = was.softmax(0)[label], now.softmax(0)[label]
        else:
            entry["tolerance"] *= variable.bounds[1] - variable.bounds[0]
        entry |= {"before": float(was), "after": float(now), "stays": name not in moved}
        found[name] = entry
    return found
