"""The configuration of training: how each stage is optimised, and how the image mechanism is fine-tuned."""

from dataclasses import dataclass, field

from causalcxr.support.bounds import bounded, choice

__all__ = ["STAGES", "TARGETS", "FinetuneConfig", "ImageStageConfig", "StageConfig", "TrainConfig"]

STAGES = ("attributes", "predictors", "image", "finetune")
TARGETS = ("none", "hard", "soft", "counterfactual", "intervened_only")


@dataclass
class StageConfig:
    """How one stage is optimised: AdamW, warm-up, cosine decay, clipping, moving average of the weights."""

    steps: int = bounded(1000, least=1)
    batch_size: int = bounded(32, least=1)  # rows a process and micro-step; effective: x accumulate x processes
    accumulate: int = bounded(1, least=1)  # micro-steps to one optimiser step
    learning_rate: float = bounded(1e-3, above=0)
    final_learning_rate: float = bounded(0.1, least=0, most=1)  # at the last step, as a fraction of learning_rate
    warmup_steps: int = bounded(100, least=0)
    beta1: float = bounded(0.9, least=0, below=1)
    beta2: float = bounded(0.99, least=0, below=1)
    weight_decay: float = bounded(0.01, least=0)
    clip_norm: float = bounded(200.0, above=0)  # gradients with a larger norm are scaled down to it
    skip_norm: float = bounded(0.0, least=0)  # a step with a larger norm is skipped; 0 never skips
    ema_decay: float = bounded(0.99, least=0, below=1)  # of the weights that are validated and kept
    validate_every: int = bounded(250, least=1)
    validate_rows: int = bounded(1024, least=0)  # of the validation split; 0 takes all
    checkpoint_every: int = bounded(250, least=1)
    compile: bool = False  # torch.compile: for long stages on a GPU; minutes to start, and no gain on a CPU


@dataclass
class ImageStageConfig(StageConfig):
    """The image's stage. Its KL term grows to its full weight over the first `kl_warmup_steps` steps.

    With full weight from the start a short training may leave layers of latents unused for good (posterior
    collapse), and which ones is up to the seed.
    """

    kl_warmup_steps: int = bounded(0, least=0)


@dataclass
class TrainConfig:
    """What training does, on which device, and with which seed."""

    stages: list[str] = field(default_factory=lambda: ["attributes", "image"])
    seed: int = bounded(0, least=0)
    device: str = choice("auto", ("auto", "cpu", "cuda"))
    # auto is bf16-mixed on a GPU that has it
    precision: str = choice("auto", ("auto", "32-true", "bf16-mixed", "16-mixed"))
    threads: int = bounded(0, least=0)  # of the CPU; 0 leaves torch's choice
    log_every: int = bounded(50, least=1)
    max_bad_steps: int = bounded(10, least=0)  # skipped for a non-finite loss or gradient before training stops
    attributes: StageConfig = field(
        default_factory=lambda: StageConfig(steps=2000, batch_size=256, learning_rate=5e-3, validate_rows=0)
    )
    predictors: StageConfig = field(
        default_factory=lambda: StageConfig(steps=2000, learning_rate=2e-3, weight_decay=0.05, validate_rows=0)
    )
    image: ImageStageConfig = field(default_factory=ImageStageConfig)
    outputs: StageConfig = field(  # flows of the predictor's outputs, for counterfactual targets
        default_factory=lambda: StageConfig(steps=2000, batch_size=512, learning_rate=5e-3, validate_rows=0)
    )
    finetune: StageConfig = field(
        default_factory=lambda: StageConfig(steps=1500, learning_rate=5e-4, final_learning_rate=0.1)
    )


@dataclass
class FinetuneConfig:
    """How the image mechanism is fine-tuned.

    `targets`: none | hard | soft | counterfactual | intervened_only (see finetune.py; none goes on with the image
    stage's own loss). `intervene`: attributes that are intervened on; empty: all with a path to the image.
    `tolerance`: how far the image stage's loss may rise above its measured mean, by dimension.
    `calibration_rows`: training rows on which that mean is measured. `multiplier_rate`, `damping`: of the Lagrange
    multiplier, per bit per dimension; a high rate winds it up in the warm-up and slows the targets down.
    `multiplier_floor`: what the loss on factual images weighs at least, also far within its bound.
    `intervened_weight`: of the loss of what an intervention sets, against 1 for what it should leave alone.
    `augment`: how much factual and counterfactual images are shifted, turned and scaled alike before the predictor
    sees them, so that it can't be pleased by a few pixels.
    """

    targets: str = choice("counterfactual", TARGETS)
    intervene: list[str] = field(default_factory=list)
    tolerance: float = bounded(0.05, least=0)
    calibration_rows: int = bounded(2048, least=1)
    multiplier_rate: float = bounded(0.5, least=0)
    damping: float = bounded(100.0, least=0)
    multiplier_floor: float = bounded(30.0, least=0)
    intervened_weight: float = bounded(3.0, above=0)
    augment: float = bounded(1.0, least=0)
