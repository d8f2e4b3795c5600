"""What each stage of training does: which objective on which rows, and what of it is kept."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.config import StageConfig
from causalcxr.data.cohort import Cohort, Split
from causalcxr.errors import ConfigError, nearest
from causalcxr.finetune import FinetuneObjective
from causalcxr.mechanisms.severity import Severity
from causalcxr.mechanisms.template import Template
from causalcxr.objectives import AttributesObjective, ImageObjective, Objective, SeverityObjective
from causalcxr.predictors.building import ROLES, build_predictor
from causalcxr.predictors.evidence import Evidence, observe_split
from causalcxr.predictors.outputs import OutputModel, output_nodes
from causalcxr.predictors.predictor import Predictor
from causalcxr.predictors.training import (
    PredictorObjective,
    calibrate_on,
    load_predictor,
    predict_split,
    save_predictor,
)
from causalcxr.randomness import Draws
from causalcxr.runs import Run
from causalcxr.scm import StructuralCausalModel
from causalcxr.training import Enriched, Rows, Stage, Table, seed_of
from causalcxr.values import Batch, image_to_float

__all__ = ["STAGE_RUNNERS", "Sitting", "measure_bound"]

log = logging.getLogger(__name__)

TEMPLATE_ROWS = 20_000  # of the training split, at most: means are known well enough by then


@dataclass(frozen=True)
class Sitting:
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

    @property
    def severity(self) -> Severity | None:
        """What the image's mechanism knows of severities."""
        return self.scm.image_mechanism.severity if self.run.graph.image else None

    def minimise(
        self,
        name: str,
        objective: Objective,
        settings: StageConfig,
        train: Rows | None = None,
        val: Rows | None = None,
    ) -> None:
        """Train an objective on the one loop, going on where an earlier sitting stopped."""
        progress = Stage(
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


def run_attributes(sitting: Sitting) -> Facts:
    """Fit the mechanisms of all attributes."""
    sitting.minimise("attributes", AttributesObjective(sitting.scm), sitting.run.config.train.attributes)
    return {}


def run_image(sitting: Sitting) -> Facts:
    """Fit the image's mechanism, and first the severities and the template that it is made with, if any."""
    severity = sitting.severity
    train, val = (sitting.train, sitting.val) if severity is None else _fit_severity(sitting, severity)
    template = sitting.scm.image_mechanism.template
    if template is not None:
        _fit_template(sitting, train, template)
    settings = sitting.run.config.train.image
    sitting.minimise("image", ImageObjective(sitting.scm, settings.kl_warmup_steps), settings, train, val)
    return {}


def run_predictors(sitting: Sitting) -> Facts:
    """Train, calibrate and keep the predictor and the evaluator."""
    run = sitting.run
    assert run.graph.image is not None
    for role in ROLES:
        predictor = build_predictor(role, run.config, run.graph)
        predictor.fit_scaling(sitting.train.attributes)
        sitting.minimise(role, PredictorObjective(predictor, run.graph.image), run.config.train.predictors)
        calibrate_on(predictor, sitting.val)
        if sitting.fabric.is_global_zero:
            save_predictor(run, role, predictor)
    return {}


def run_finetune(sitting: Sitting) -> Facts:
    """Fine-tune the image's mechanism. What is stored about it: the measured bound, and which predictor it saw."""
    run, scm, device = sitting.run, sitting.scm.to(sitting.fabric.device), sitting.fabric.device
    config, train = run.config.finetune, sitting.train.attributes
    _check_intervene(config.intervene, run)
    predictor = (sitting.predictor or load_predictor(run, "predictor")).to(device)
    if sitting.predictor is not None:
        calibrate_on(predictor, sitting.val)
    outputs = _fit_outputs(sitting, predictor) if config.targets == "counterfactual" else None
    bound = measure_bound(scm, sitting.train, config.calibration_rows, run.config.train.seed)
    log.info("negative ELBO before fine-tuning: %.4f bits per dimension", bound)
    marginals = {name: values.to(device) for name, values in train.items()}
    objective = FinetuneObjective(scm, predictor, config, marginals, bound, outputs)
    sitting.minimise("finetune", objective, run.config.train.finetune)
    facts = {"targets": config.targets, "bound": bound, "tolerance": config.tolerance}
    facts |= {"predictor": predictor.fingerprint(), "multiplier": float(objective.multiplier)}
    return {"finetune": facts}


STAGE_RUNNERS: dict[str, Callable[[Sitting], Facts]] = {
    "attributes": run_attributes,
    "predictors": run_predictors,
    "image": run_image,
    "finetune": run_finetune,
}


@torch.no_grad()
def measure_bound(scm: StructuralCausalModel, rows: Split, n: int, seed: int, batch_size: int = 128) -> float:
    """The mean negative ELBO in bits per dimension on `n` rows (in a shuffled order, always the same)."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed_of(seed, "bound")))[:n]
    total, mechanism = 0.0, scm.image_mechanism
    image = mechanism.variable.name
    for i, indices in enumerate(order.split(batch_size)):
        batch: dict[str, Tensor] = {k: v.to(scm.device) for k, v in rows.batch(indices).items()}
        draws = Draws(seed_of(seed, "bound", i), scm.device)
        elbo = mechanism.elbo(batch[image], batch, draws)
        total += float(mechanism.loss(elbo).sum())
    return total / (len(order) * math.log(2) * math.prod(mechanism.event_shape))


def _fit_outputs(sitting: Sitting, predictor: Predictor) -> OutputModel:
    """The conditional flows of the predictor's outputs, fitted on the training split.

    The images are augmented as in fine-tuning. Outputs are a little less sure of augmented images, and carried by
    the law of those that are not, the targets would ask of every change a little too much.
    """
    severity, seed = sitting.severity, sitting.run.config.train.seed
    begun, strength = time.perf_counter(), sitting.run.config.finetune.augment
    tables = {}
    for rows in (sitting.train, sitting.val):
        draws = Draws(seed_of(seed, "outputs", rows.name), predictor.temperature.device)
        seen = predict_split(predictor, rows, strength=strength, draws=draws)
        nodes = output_nodes(predictor.variables, seen)
        measured = _measure(severity, rows, seed) if severity else {}
        tables[rows.name] = Table(nodes | rows.attributes | measured)
    log.info("predictions on the training split took %.0f s", time.perf_counter() - begun)
    parents = [*sitting.scm.image_mechanism.parents, *(severity.variables if severity else ())]
    model = OutputModel(predictor.variables, parents, tables["train"].attributes)
    settings = sitting.run.config.train.outputs
    sitting.minimise("outputs", OutputsObjective(model), settings, tables["train"], tables["val"])
    return model


def _measure(severity: Severity, rows: Split, seed: int) -> dict[str, Tensor]:
    """The severities `(N,)` of a split as abduction measures them, noise included."""
    device = severity.encoder.loc.device
    observed = {name: values.to(device) for name, values in observe_split(severity, rows).items()}
    blurred = severity.blur(observed, Draws(seed_of(seed, "measure", rows.name), device))
    return {name: values.cpu() for name, values in blurred.items()}


def _fit_severity(sitting: Sitting, severity: Severity) -> tuple[Enriched, Enriched]:
    """Take over the trained predictor, whose evidence is the severity, and fit the flows on the training split.

    Returns the rows to train and validate on, with the evidence, which needn't be looked for again at every step.
    """
    severity.to(sitting.fabric.device)
    assert isinstance(severity.evidence, Evidence)
    predictor = load_predictor(sitting.run, "predictor")
    severity.evidence.predictor.load_state_dict(predictor.state_dict())
    train, val = (Enriched(rows, observe_split(severity, rows)) for rows in (sitting.train, sitting.val))
    severity.calibrate(train.attributes)
    sitting.minimise("severity", SeverityObjective(severity), sitting.run.config.train.outputs, train, val)
    severity.requires_grad_(False)
    return train, val


def _fit_template(sitting: Sitting, train: Split | Enriched, template: Template) -> None:
    """Solve for what the parents alone foretell, on training rows (with their evidence) in a shuffled order."""
    mechanism = sitting.scm.image_mechanism.to(sitting.fabric.device)
    generator = torch.Generator().manual_seed(seed_of(sitting.run.config.train.seed, "template"))
    order = torch.randperm(len(train), generator=generator)[:TEMPLATE_ROWS]

    def read() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for indices in order.split(256):
            batch = {k: v.to(sitting.fabric.device) for k, v in train.batch(indices).items()}
            image, features = image_to_float(batch[mechanism.variable.name]), mechanism.film_features(batch)
            others = [mechanism.parent_encoder(batch) - features]
            if mechanism.severity is not None:
                seen = torch.stack(list(mechanism.severity.counted(batch).values()), dim=1)
                others += [seen, seen.square()]
            yield features, torch.cat(others, dim=1), image

    template.fit(read)


class OutputsObjective(Objective):
    """Negative log-likelihood of the predictor's outputs given the image's parents, in nats."""

    def __init__(self, model: OutputModel):
        super().__init__()
        self.model, self.names = model, model.nodes

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return self.model(batch)


def _check_intervene(names: list[str], run: Run) -> None:
    for name in names:
        if name not in run.graph.attributes:
            hint = nearest(name, run.graph.attributes)
            raise ConfigError(f"finetune.intervene has '{name}', which is no attribute of the graph; {hint}")
