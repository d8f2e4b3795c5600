"""Makes the images of an audit: every patient is abducted once, and all interventions are decoded together.

A **placebo** is the same counterfactual from another abduction: another draw of the noise or, where nothing is
drawn, another setting of the solver. What a score changes by between the two is no effect of the attribute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.audit.config import AuditConfig
from causalcxr.data.cohort import Split
from causalcxr.mechanisms.image import ImageMechanism
from causalcxr.randomness import Draws, seed_of
from causalcxr.scm import Abduction, StructuralCausalModel, make_images
from causalcxr.values import Batch

__all__ = ["MadeBatch", "Maker"]

_SUMMARY_SIDE = 32  # pixels of the images that describe a patient's noise


@dataclass(frozen=True)
class MadeBatch:
    """Images of rows `(B,)` of a split, `(B, C, H, W)` in [0, 1].

    `made`, `placebo`: under each level. `common`: what the noise makes under attributes that are the same for all
    patients, small, `(B, pixels)`.
    """

    rows: np.ndarray
    abduction: Abduction
    real: Tensor
    made: Sequence[Tensor]
    placebo: Sequence[Tensor]
    common: Tensor

    @property
    def all_images(self) -> list[Tensor]:
        """The real ones, those made, the placebos."""
        return [self.real, *self.made, *self.placebo]


@dataclass(frozen=True)
class Maker:
    """Makes all images of a split's rows. `levels`: attribute and value. `common`: a value of every attribute."""

    scm: StructuralCausalModel
    split: Split
    levels: Sequence[tuple[str, Any]]
    common: dict[str, Any]
    config: AuditConfig

    @property
    def rows(self) -> np.ndarray:
        """The rows that are audited."""
        n, wanted = len(self.split), self.config.rows
        if not 0 < wanted < n:
            return np.arange(n)
        return np.sort(np.random.default_rng(self.config.seed).permutation(n)[:wanted])

    def batches(self) -> Iterator[MadeBatch]:
        """All rows, batch by batch."""
        rows, size = self.rows, self.config.batch_size
        for start in range(0, len(rows), size):
            yield self.make(rows[start : start + size])

    @torch.no_grad()
    def make(self, rows: np.ndarray) -> MadeBatch:
        """The images of some rows."""
        scm, seed = self.scm, seed_of(self.config.seed, int(rows[0]))
        image = scm.graph.image
        assert image is not None
        abduction = scm.abduct(self.split.batch(rows), seed)
        interventions = [{name: value} for name, value in self.levels]
        *made, common = scm.counterfactual(abduction, [*interventions, self.common], self.config.effect)
        placebo = _made_again(scm.image_mechanism, abduction.factual[image], abduction.factual, made, seed)
        small = F.adaptive_avg_pool2d(common[image], min(_SUMMARY_SIDE, common[image].shape[-1]))
        return MadeBatch(
            rows,
            abduction,
            abduction.factual[image],
            [batch[image] for batch in made],
            placebo,
            small.flatten(1),
        )


def _made_again(
    mechanism: ImageMechanism, images: Tensor, factual: Batch, made: Sequence[Batch], seed: int
) -> list[Tensor]:
    """The images that were made, from another abduction and under the same parents."""
    replica = mechanism.replica()
    noise = replica.abduct(images, factual, Draws(seed_of(seed, "placebo"), images.device))
    return make_images(replica, noise, factual, made)
