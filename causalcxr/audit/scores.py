"""What a model says of the images of an audit: scores by row, of the real images, of those made, of placebos."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from causalcxr.graph import Graph
from causalcxr.predictors.adapters import call_model
from causalcxr.predictors.predictor import Predictor
from causalcxr.support.errors import ConfigError, DataError, nearest

__all__ = [
    "KINDS",
    "Scorer",
    "Scores",
    "finding_label",
    "on_scale",
    "score_sets",
    "scorer_of",
    "threshold_on_scale",
]

KINDS = ("probabilities", "values")  # probabilities become log-odds, values stay as they are
UNNAMED = "score"  # of a model with one score that does not name it
_SMALLEST = 1e-6  # a probability is kept this far from 0 and 1

# Images (B, C, H, W), in [0, 1] and rounded to 8 bits, to scores by name, (B,) each.
Scorer = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Scores:
    """Of one score, by row: `real` `(N,)`; `made` and `placebo` `(N, levels)`, None where they were not scored."""

    real: np.ndarray
    made: np.ndarray | None = None
    placebo: np.ndarray | None = None


def scorer_of(model: Any, graph: Graph, finding: str, kind: str = "probabilities") -> Scorer:
    """What asks a model for its scores.

    A `Predictor` (`predictors/adapters.py`) gives the log-odds of each label of the finding but the first. Any
    other callable takes images and gives scores `(B,)` or `(B, M)`, or by name `(B,)`, of the `kind` that is said.
    Raises DataError: a predictor of something else.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind '{kind}'; {nearest(kind, KINDS)}")
    if not callable(model):
        raise ConfigError(
            f"the audited model is {type(model).__name__}; expected a function from images to scores"
        )
    if isinstance(model, nn.Module):
        model.eval()  # a score must not depend on what else is in the batch
    if not isinstance(model, Predictor):
        return lambda images: _named(call_model(model, images, "the audited model"), kind)
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


def finding_label(graph: Graph, score: str, finding: str) -> int | None:
    """Which label of the finding a score is of, by its name: that label's, the attribute's, or none of its own.

    None: of something else, or of a finding that is not in the graph or is no label.
    """
    labels = graph[finding].labels if finding in graph.attributes else ()
    if score in labels:
        return labels.index(score)
    return 1 if len(labels) == 2 and score in (finding, UNNAMED) else None


@torch.no_grad()
def score_sets(scorer: Scorer, sets: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Scores `(B, sets)` by name, of sets of images `(B, C, H, W)` in [0, 1]; all in one pass, in 8 bits."""
    images = (255 * torch.cat(list(sets))).round() / 255
    found = scorer(images)
    for name, values in found.items():
        if len(values) != len(images):
            raise DataError(f"score '{name}': the audited model gave {len(values)} for {len(images)} images")
    return {
        name: values.detach().double().cpu().numpy().reshape(len(sets), -1).T for name, values in found.items()
    }


def threshold_on_scale(name: str, value: Any, kind: str) -> float:
    """An operating point on the scale of `on_scale`. Raises ConfigError: no number, or no probability."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    inside = number == number and (kind == "values" or 0 < number < 1)
    if not inside or math.isinf(number):
        expected = "a number" if kind == "values" else "a probability between 0 and 1"
        raise ConfigError(f"threshold of '{name}': expected {expected}, got {value}")
    return number if kind == "values" else math.log(number / (1 - number))


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
    if np.isin(values, (0.0, 1.0)).all():
        raise DataError(f"score '{name}': only 0 and 1, decisions and no probabilities; give what they stand on")
    inside = values.clip(_SMALLEST, 1 - _SMALLEST)
    return np.log(inside / (1 - inside))


def _named(found: Any, kind: str) -> dict[str, Tensor]:
    """What a function returned, by name: a mapping of names to scores, or a tensor or array of them."""
    if isinstance(found, Mapping):
        columns = {str(name): _as_array(values) for name, values in found.items()}
    else:
        table = _as_array(found)
        table = table[:, None] if table.ndim == 1 else table
        if table.shape[1] == 0:
            raise DataError("the audited model returned no scores")
        names = [UNNAMED] if table.shape[1] == 1 else [f"{UNNAMED} {i + 1}" for i in range(table.shape[1])]
        columns = {name: table[:, i] for i, name in enumerate(names)}
    return {name: torch.from_numpy(on_scale(name, values, kind)) for name, values in columns.items()}


def _as_array(found: Any) -> np.ndarray:
    array = found.detach().cpu().double().numpy() if isinstance(found, Tensor) else found
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        got = f"{type(found).__name__} {tuple(getattr(found, 'shape', ()))}".replace("()", "").strip()
        raise DataError(
            f"the audited model returned {got}; expected a tensor or array of scores, (images,) or "
            "(images, scores), or these by name"
        )
    return array.astype(np.float64)


def _log_odds(logits: Tensor, i: int) -> Tensor:
    """Of one label against all others."""
    return logits[:, i] - torch.cat([logits[:, :i], logits[:, i + 1 :]], dim=1).logsumexp(dim=1)
