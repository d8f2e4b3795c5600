"""What an audit needs besides the scores: who the patients are, what describes them, how good the model is.

It is gathered in the pass that makes the images. `Material` is arrays alone, so that it can wait on disk until a
vendor's scores come back (`exchange.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import Contrast, levels_of
from causalcxr.audit.dependence import FEWEST
from causalcxr.audit.gates import RESAMPLES
from causalcxr.audit.making import MadeBatch, Maker
from causalcxr.data.cohort import Cohort
from causalcxr.graph import Graph
from causalcxr.interventions import draw_values
from causalcxr.metrics.amplification import measure_trial, off_target
from causalcxr.metrics.composition import grey_levels
from causalcxr.metrics.intervals import Interval
from causalcxr.metrics.scoring import Scored, join_trials, score_batch
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import Draws, seed_of
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import DataError
from causalcxr.support.progress import progress_bar

__all__ = ["Material", "gather"]


@dataclass(frozen=True)
class Material:
    """By audited row `(N,)`: `ids` of the source, `patients`, `attributes` (numbers of labels, or numbers).

    `noise` `(N, k)`: principal components of what the patients would look like if all had the same attributes.
    `composition`: grey levels by which a null intervention changes an image of the first batch, on average.
    `quality`: what the evaluator says of each attribute's interventions, in AUROC points: `overshoot` and
    `off_target`; empty without one.
    """

    graph: Graph
    contrasts: Sequence[Contrast]
    ids: np.ndarray
    patients: np.ndarray
    attributes: Mapping[str, np.ndarray]
    noise: np.ndarray
    composition: float
    quality: Mapping[str, Mapping[str, Interval]]

    @property
    def levels(self) -> list[tuple[str, Any]]:
        """Attribute and value of every set of counterfactuals."""
        return levels_of(self.contrasts)

    def sides(self, contrast: Contrast) -> tuple[int, int, np.ndarray]:
        """Which levels the reference and the other value are; by row `(N,)` that which is not the row's own."""
        variable, values = self.graph[contrast.attribute], self.attributes[contrast.attribute]
        i, j = (self.levels.index((contrast.attribute, v)) for v in (contrast.reference, contrast.other))
        other = variable.labels.index(contrast.other) if variable.is_discrete else contrast.other
        return i, j, np.where(values == other, i, j)


def gather(
    scm: StructuralCausalModel,
    cohort: Cohort,
    contrasts: Sequence[Contrast],
    evaluator: Predictor | None,
    config: AuditConfig,
    sink: Callable[[MadeBatch], None],
    split: str = "test",
) -> Material:
    """Make all images of a split, hand each batch to `sink`, and keep what the audit needs.

    Raises DataError: too few patients.
    """
    graph, train, rows_of = scm.graph, cohort.split("train").attributes, cohort.split(split)
    common = {
        name: values.mode().values if graph[name].is_discrete else values.median()
        for name, values in train.items()
    }
    maker = Maker(scm, rows_of, levels_of(contrasts), common, config)
    names = list(dict.fromkeys(contrast.attribute for contrast in contrasts))
    drawn = draw_values(train, graph.causes_of_image, len(rows_of), Draws(seed_of(config.seed, "marginal")))
    _refuse_few(rows_of.patients[maker.rows])
    small, scored, changed = [], [], None
    with progress_bar("audit: images", len(maker.rows)) as advance:
        for made in maker.batches():
            sink(made)
            small.append(made.common.cpu())
            changed = changed if changed is not None else _null_change(scm, made)
            if evaluator is not None:
                values = {name: drawn[name][made.rows] for name in names}
                ids = torch.from_numpy(rows_of.ids[made.rows])
                scored.append(score_batch(scm, evaluator, made.abduction, values, None, ids))
            advance("", len(made.rows))
    rows = maker.rows
    return Material(
        graph,
        list(contrasts),
        rows_of.ids[rows],
        rows_of.patients[rows],
        {name: values[rows].numpy() for name, values in rows_of.attributes.items()},
        _components(torch.cat(small).double(), config.summary),
        math.nan if changed is None else changed,
        _quality(scm, scored, names, train, rows_of.patients[rows]),
    )


def _refuse_few(patients: np.ndarray) -> None:
    if (n := len(np.unique(patients))) < FEWEST:
        raise DataError(
            f"audit: {n} patients; expected at least {FEWEST}: take more rows (audit.rows=0 takes all)"
        )


@torch.no_grad()
def _null_change(scm: StructuralCausalModel, made: MadeBatch) -> float:
    """Grey levels by which images change that are made under their own attributes, on average."""
    image = scm.graph.image
    assert image is not None
    again = scm.image_mechanism(made.abduction.noise[image], made.abduction.factual)
    return float(grey_levels(again, made.real).mean())


def _components(values: torch.Tensor, k: int) -> np.ndarray:
    """The scores of rows `(N, P)` on their first k principal components, `(N, at most k)`."""
    centred = values - values.mean(dim=0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :k].numpy()


def _quality(
    scm: StructuralCausalModel,
    scored: Sequence[Mapping[str, Scored]],
    names: Sequence[str],
    train: Mapping[str, torch.Tensor],
    patients: np.ndarray,
) -> dict[str, dict[str, Interval]]:
    """Overshoot, and the mean absolute amplification of all others, of each attribute, in AUROC points."""
    if not scored:
        return {}
    graph = scm.graph
    medians = {name: float(train[name].median()) for name in graph.attributes if not graph[name].is_discrete}
    found = {}
    for trial in join_trials(scm, scored, names, train):
        scores, amplification = measure_trial(graph, trial, medians, patients, RESAMPLES)
        found[trial.name] = {"overshoot": scores["overshoot", trial.name]}
        if amplification:
            found[trial.name]["off_target"] = off_target(list(amplification.values()), len(patients))
    return found
