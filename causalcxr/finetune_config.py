"""The configuration of counterfactual fine-tuning."""

from dataclasses import dataclass, field

__all__ = ["TARGETS", "FinetuneConfig"]

TARGETS = ("none", "hard", "soft", "counterfactual", "intervened_only")


@dataclass
class FinetuneConfig:
    """How the image mechanism is fine-tuned.

    `targets`: none | hard | soft | counterfactual | intervened_only (see finetune.py; none goes on with the image
    stage's own loss). `intervene`: attributes that are intervened on; empty: all with a path to the image.
    `tolerance`: how far the image stage's loss may rise above its measured mean, bits per dimension.
    `calibration_rows`: training rows on which that mean is measured. `multiplier_rate`, `damping`: of the Lagrange
    multiplier, per bit per dimension; a high rate winds it up in the warm-up and slows the targets down.
    `multiplier_floor`: what the loss on factual images weighs at least, also far within its bound.
    `intervened_weight`: of the loss of what an intervention sets, against 1 for what it should leave alone.
    `augment`: how much factual and counterfactual images are shifted, turned and scaled alike before the predictor
    sees them, so that it can't be pleased by a few pixels.
    """

    targets: str = "counterfactual"
    intervene: list[str] = field(default_factory=list)
    tolerance: float = 0.05
    calibration_rows: int = 2048
    multiplier_rate: float = 0.5
    damping: float = 100.0
    multiplier_floor: float = 30.0
    intervened_weight: float = 3.0
    augment: float = 1.0
