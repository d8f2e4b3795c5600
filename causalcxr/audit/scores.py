"""What a model says of the images of an audit: scores by row, of the real images, of those made, of placebos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Graph
from causalcxr.predictors.predictor import Predictor
from causalcxr.support.errors import DataError

__all__ = ["KINDS", "Scorer", "Scores", "on_scale", "score_sets", "scorer_of"]

KINDS = ("probabilities", "values")  # probabilities become log-odds, values stay as they are
_SMALLEST = 1e-6  # a probability is kept this far from 0 and 1

# Images (B, C, H, W), in [0, 1] and rounded to 8 bits, to scores by name, (B,) each.
Scorer = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Scores:
    """Of one score, by row: `real` `(N,)`; `made` and `placebo` `(N, levels)`, None where they were not scored."""

    real: np.ndarray
    made: np.ndarray | None = None
    placebo: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> "Scores":
        """The rows of a mask or an index."""
        made, placebo = (None if of is None else of[rows] for of in (self.made, self.placebo))
        return Scores(self.real[rows], made, placebo)


def scorer_of(model: Any, graph: Graph, finding: str, kind: str = "probabilities") -> Scorer:
    """What asks a model for its scores.

    A `Predictor` (`predictors/adapters.py`) gives the log-odds of each label of the finding but the first. Any
    other callable takes images and gives scores `(B,)` or `(B, M)`, of the `kind` that is said.
    Raises DataError: a predictor of something else.
    """
    if not isinstance(model, Predictor):
        return lambda images: _named(model(images), kind)
    if finding not in model.index:
        known = ", ".join(model.index) or "nothing"
        raise DataError(f"audit: the model predicts {known}, not '{finding}'; set audit.finding to one of these")
    labels, continuous = graph[finding].labels, not graph[finding].is_discrete

    def score(images: Tensor) -> Mapping[str, Tensor]:
        output = model(images.to(model.temperature.device))[finding]
        if continuous:
            return {finding: output}
        return {labels[i]: _log_odds(output, i) for i in range(1, len(labels))}

    return score


@torch.no_grad()
def score_sets(scorer: Scorer, sets: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Scores `(B, sets)` by name, of sets of images `(B, C, H, W)` in [0, 1]; all in one pass, in 8 bits."""
    found = scorer((255 * torch.cat(list(sets))).round() / 255)
    return {
        name: values.detach().double().cpu().numpy().reshape(len(sets), -1).T for name, values in found.items()
    }


def on_scale(name: str, values: np.ndarray, kind: str) -> np.ndarray:
    """Scores on the scale on which they are compared. Raises DataError: not finite, or no probabilities."""
    if not np.isfinite(values).all():
        raise DataError(f"score '{name}': {int((~np.isfinite(values)).sum())} of {values.size} are not finite")
    if kind == "values":
        return values
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"score '{name}': expected probabilities in [0, 1], got {values.min():.3g} to {values.max():.3g}; "
            "say kind=values if these are log-odds or another scale"
        )
    inside = values.clip(_SMALLEST, 1 - _SMALLEST)
    return np.log(inside / (1 - inside))


def _named(found: Any, kind: str) -> dict[str, Tensor]:
    if not isinstance(found, Tensor) or found.ndim not in (1, 2):
        shape = tuple(getattr(found, "shape", ())) or type(found).__name__
        raise DataError(f"the audited model returned {shape}; expected a tensor (images,) or (images, scores)")
    columns = found[:, None] if found.ndim == 1 else found
    names = ["score"] if columns.shape[1] == 1 else [f"score {i + 1}" for i in range(columns.shape[1])]
    columns = columns.detach().double().cpu().numpy()
    return {name: torch.from_numpy(on_scale(name, columns[:, i], kind)) for i, name in enumerate(names)}


def _log_odds(logits: Tensor, i: int) -> Tensor:
    """Of one label against all others."""
    return logits[:, i] - torch.cat([logits[:, :i], logits[:, i + 1 :]], dim=1).logsumexp(dim=1)
