"""Audits a model that is at hand: makes the images, asks for its scores, concludes, and writes the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from causalcxr.audit.conclusion import Found, conclude
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import choose_contrasts
from causalcxr.audit.making import MadeBatch
from causalcxr.audit.material import Material, gather
from causalcxr.audit.scores import Scorer, Scores, finding_label, score_sets, scorer_of
from causalcxr.data.cohort import Cohort
from causalcxr.metrics.auroc import youden_threshold
from causalcxr.predictors.predictor import Predictor
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["Audit", "audit_model"]


@dataclass(frozen=True)
class Audit:
    """What an audit has found, and what it stands on.

    `moved`: the patients whose scores change most. `log_odds`: whether scores are those of probabilities.
    `report`: where it is written, if it is.
    """

    config: AuditConfig
    material: Material
    scores: Mapping[str, Scores]
    found: list[Found]
    moved: "list[Moved]"
    log_odds: bool
    report: Path | None = None


@dataclass(frozen=True)
class Moved:
    """One patient's images `(C, H, W)`, the real one and one for each level, with their scores `(1 + levels,)`."""

    row: int
    change: float
    images: list[Tensor]
    scores: np.ndarray


def audit_model(
    scm: StructuralCausalModel,
    cohort: Cohort,
    model: Any,
    config: AuditConfig | None = None,
    evaluator: Predictor | None = None,
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    split: str = "test",
) -> Audit:
    """Audit a model on a split of a cohort. `model`, `kind`: see `scores.scorer_of`.

    `thresholds`: operating points by score, on its scale (log-odds of probabilities); without one it is chosen on
    the validation split, where sensitivity plus specificity is largest.
    Raises ConfigError: contrasts that the graph does not have. Raises DataError: scores that can't be audited.
    """
    config = config or AuditConfig()
    contrasts = choose_contrasts(scm.graph, config, cohort.split("train").attributes)
    scorer = scorer_of(model, scm.graph, config.finding, kind)
    chosen = _validation_thresholds(scorer, cohort, config.finding)
    for name, value in (thresholds or {}).items():
        if name not in chosen:
            raise ConfigError(f"threshold: no score '{name}'; {nearest(name, chosen)}")
        chosen[name] = value
    asked = _Asked(scorer, config.shown)
    material = gather(scm, cohort, contrasts, evaluator, config, asked, split)
    scores, log_odds = asked.scores(), kind == "probabilities" or isinstance(model, Predictor)
    return Audit(config, material, scores, conclude(material, scores, chosen, config), asked.moved, log_odds)


class _Asked:
    """Scores every batch that is made, and keeps the images of the patients that move most."""

    def __init__(self, scorer: Scorer, shown: int):
        self.scorer, self.shown = scorer, shown
        self.parts: list[dict[str, np.ndarray]] = []
        self.moved: list[Moved] = []
        self.rows = 0

    def __call__(self, made: MadeBatch) -> None:
        found = score_sets(self.scorer, made.all_images)
        self.parts.append(found)
        levels = len(made.made)
        first = next(iter(found.values()))[:, : 1 + levels]
        change = np.abs(first[:, 1:] - first[:, :1]).max(axis=1)
        for i in np.argsort(-change)[: self.shown]:
            images = [of[i].cpu() for of in (made.real, *made.made)]
            self.moved.append(Moved(self.rows + int(i), float(change[i]), images, first[i]))
        self.moved = sorted(self.moved, key=lambda one: -one.change)[: self.shown]
        self.rows += len(made.rows)

    def scores(self) -> dict[str, Scores]:
        joined = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        levels = (next(iter(joined.values())).shape[1] - 1) // 2
        return {name: Scores(v[:, 0], v[:, 1 : 1 + levels], v[:, 1 + levels :]) for name, v in joined.items()}


def _validation_thresholds(scorer: Scorer, cohort: Cohort, finding: str) -> dict[str, float]:
    """Where sensitivity plus specificity is largest on the validation split; the median without a finding."""
    split = cohort.split("val")
    parts = [score_sets(scorer, [images / 255]) for images in split.images()]
    found = {}
    for name in parts[0]:
        values = np.concatenate([part[name][:, 0] for part in parts])
        label = finding_label(cohort.graph, name, finding)
        positive = np.zeros(len(values), bool) if label is None else split.attributes[finding].numpy() == label
        known = 0 < positive.sum() < len(values)
        found[name] = youden_threshold(values, positive) if known else float(np.median(values))
    return found
