"""What each stage of training does: which objective on which rows, and what of it is kept."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.building import ROLES, build_predictor
from causalcxr.config import Config
from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.rows import Rows, Table
from causalcxr.mechanisms.image import ImageMechanism, ObservedImages
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.calibration import calibrate_on, predict_split
from causalcxr.predictors.outputs import OutputBatch, OutputModel, output_ranges, output_values
from causalcxr.predictors.predictor import Predictor
from causalcxr.randomness import Draws, seed_of, seeded
from causalcxr.runs import Run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.training.config import StageConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.loop import Fit
from causalcxr.training.objectives import (
    AttributesObjective,
    ImageObjective,
    Objective,
    OutputsObjective,
    PredictorObjective,
)
from causalcxr.values import Batch

__all__ = ["STAGE_RUNNERS", "Context", "check_stages", "measure_bound", "observed_images", "outputs_of"]

log = logging.getLogger(__name__)

PREPARED_ROWS = 20_000  # of the training split, at most: means are known well enough by then


@dataclass(frozen=True)
class Context:
    """What every stage works with."""

    run: Run
    cohort: Cohort
    scm: StructuralCausalModel
    fabric: Fabric
    recorder: Callable[[str], Callable[[dict[str, Any]], None]]
    predictor: Predictor | None = None  # fine-tunes in the place of the run's own

    @property
    def train(self) -> Split:
        return self.cohort.split("train")

    @property
    def val(self) -> Split:
        return self.cohort.split("val")

    def minimise(
        self,
        name: str,
        objective: Objective,
        settings: StageConfig,
        train: Rows | None = None,
        val: Rows | None = None,
    ) -> None:
        """Train an objective on the one loop, resuming where an earlier process stopped."""
        progress = Fit(
            name=name,
            objective=objective,
            train=train or self.train,
            val=val or self.val,
            stage=settings,
            config=self.run.config.train,
            fabric=self.fabric,
            folder=self.run.state,
            record=self.recorder(name),
        ).run()
        if self.fabric.is_global_zero:
            self.run.note(seconds={name: progress.seconds})


Facts = dict[str, Any]


def run_attributes(context: Context) -> Facts:
    """Fit the mechanisms of all attributes."""
    objective, settings = AttributesObjective(context.scm), context.run.config.train.attributes
    context.minimise(
        "attributes", objective, settings, Table(context.train.attributes), Table(context.val.attributes)
    )
    return {}


def run_image(context: Context) -> Facts:
    """Fit the image's mechanism, and first what of it is solved for."""
    mechanism, seed = context.scm.image_mechanism.to(context.fabric.device), context.run.config.train.seed
    mechanism.prepare(observed_images(mechanism, context.train, context.fabric, seed))
    settings = context.run.config.train.image
    context.minimise("image", ImageObjective(context.scm, settings.kl_warmup_steps), settings)
    return {}


def run_predictors(context: Context) -> Facts:
    """Train, calibrate and keep the predictor and the evaluator."""
    run = context.run
    assert run.graph.image is not None
    for role in ROLES:
        predictor = build_predictor(role, run.config, run.graph)
        predictor.fit_scaling(context.train.attributes)
        context.minimise(role, PredictorObjective(predictor, run.graph.image), run.config.train.predictors)
        calibrate_on(predictor, context.val)
        if context.fabric.is_global_zero:
            run.save_predictor(role, predictor)
    return {}


def run_finetune(context: Context) -> Facts:
    """Fine-tune the image's mechanism. What is stored about it: the measured bound, and which predictor it saw."""
    run, scm, device = context.run, context.scm.to(context.fabric.device), context.fabric.device
    config, train = run.config.finetune, context.train.attributes
    predictor = (context.predictor or run.load_predictor("predictor")).to(device)
    if context.predictor is not None:
        calibrate_on(predictor, context.val)
    outputs = _fit_outputs(context, predictor) if config.targets == "counterfactual" else None
    bound = measure_bound(scm, context.train, config.calibration_rows, run.config.train.seed)
    log.info("the image stage's loss before fine-tuning: %.4f by dimension", bound)
    marginals = {name: values.to(device) for name, values in train.items()}
    objective = FinetuneObjective(scm, predictor, config, marginals, bound, outputs)
    context.minimise("finetune", objective, run.config.train.finetune)
    facts = {"targets": config.targets, "bound": bound, "tolerance": config.tolerance}
    facts |= {"predictor": predictor.fingerprint(), "multiplier": float(objective.constraint.multiplier)}
    return {"finetune": facts}


STAGE_RUNNERS: dict[str, Callable[[Context], Facts]] = {
    "attributes": run_attributes,
    "predictors": run_predictors,
    "image": run_image,
    "finetune": run_finetune,
}


@torch.no_grad()
def measure_bound(scm: StructuralCausalModel, rows: Split, n: int, seed: int, batch_size: int = 128) -> float:
    """The mean of the image mechanism's loss by dimension on `n` rows (in a shuffled order, always the same)."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed_of(seed, "bound")))[:n]
    mechanism, total = scm.image_mechanism, torch.zeros((), dtype=torch.float64)
    image = mechanism.variable.name
    for i, indices in enumerate(order.split(batch_size)):
        batch: dict[str, Tensor] = {k: v.to(scm.device) for k, v in rows.batch(indices).items()}
        draws = Draws(seed_of(seed, "bound", i), scm.device)
        total += mechanism.infer(batch[image], batch, draws).loss.sum().cpu()
    return float(total / len(order))


def _fit_outputs(context: Context, predictor: Predictor) -> OutputModel:
    """The conditional flows of the predictor's outputs, fitted on the training split.

    The images are augmented as in fine-tuning. Outputs are a little less sure of augmented images, and carried by
    the law of those that are not, the targets would ask of every change a little too much.
    """
    begun = time.perf_counter()
    train, val = (outputs_of(context.run.config, predictor, rows) for rows in (context.train, context.val))
    log.info("predictions on the training split took %.0f s", time.perf_counter() - begun)
    with seeded(seed_of(context.run.config.train.seed, "outputs")):
        parents = context.scm.image_mechanism.parents
        model = OutputModel(predictor.variables, parents, output_ranges(train.outputs))
    model.calibrate(train)
    context.minimise(
        "outputs", OutputsObjective(model), context.run.config.train.outputs, Table(train), Table(val)
    )
    return model


def outputs_of(config: Config, predictor: Predictor, rows: Split) -> OutputBatch:
    """What the predictor says of all images of a split, augmented, and their parents."""
    seed, strength = config.train.seed, config.finetune.augment
    draws = Draws(seed_of(seed, "outputs", rows.name), predictor.temperature.device)
    seen = predict_split(predictor, rows, strength=strength, draws=draws)
    return OutputBatch(output_values(predictor.variables, seen), rows.attributes)


def observed_images(mechanism: ImageMechanism, train: Split, fabric: Fabric, seed: int) -> ObservedImages:
    """Training rows in a shuffled order, for what a mechanism solves for without gradients."""
    generator = torch.Generator().manual_seed(seed_of(seed, "template"))
    order = torch.randperm(len(train), generator=generator)[:PREPARED_ROWS]

    def read() -> Iterator[tuple[Tensor, Batch]]:
        for indices in order.split(256):
            batch = fabric.to_device(train.batch(indices))
            yield image_to_float(batch[mechanism.variable.name]), batch

    return read


def check_stages(run: Run, predictor: Predictor | None = None) -> None:
    """Refuse what can't be trained, before any data are prepared or a folder is made.

    `predictor`: fine-tunes in the place of the run's own.

    Raises ConfigError: stages that the graph has no image for, that stand before what they need, or twice; an
    architecture, a list or a name that does not fit. Raises RunError: as `load_predictor` does, of a base.
    """
    stages, graph = list(run.config.train.stages), run.graph
    if not stages or len(set(stages)) < len(stages):
        raise ConfigError(f"train.stages is {stages}; expected each stage once, and at least one")
    for stage in stages:
        if stage != "attributes" and graph.image is None:
            raise ConfigError(f"graph '{graph.name}' has no image; set train.stages=[attributes]")
    needed = ["image"] if predictor is not None else ["predictors", "image"]
    before = stages[: stages.index("finetune")] if "finetune" in stages else needed
    for stage in needed:
        if stage not in before:
            raise ConfigError(
                f"train.stages={_listed(stages)}: 'finetune' needs '{stage}' before it; "
                "set train.stages=[attributes,predictors,image,finetune], or train the base with them"
            )
    for name in run.config.finetune.intervene:
        if name not in graph.attributes:
            hint = nearest(name, graph.attributes)
            raise ConfigError(f"finetune.intervene has '{name}', which is no attribute of the graph; {hint}")
    run.build_model()
    if "predictors" in stages:
        for role in ROLES:
            build_predictor(role, run.config, graph)


def _listed(stages: list[str]) -> str:
    return f"[{','.join(stages)}]"
