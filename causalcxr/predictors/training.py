"""Trains, calibrates and keeps the predictor that fine-tunes and the evaluator that scores."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from causalcxr.data.cohort import Split
from causalcxr.errors import RunError
from causalcxr.files import load_tensors, save_tensors
from causalcxr.objectives import Objective
from causalcxr.predictors.augment import augment
from causalcxr.predictors.building import build_predictor
from causalcxr.predictors.calibration import calibrate
from causalcxr.predictors.predictor import NetworkPredictor, Prediction, Predictor
from causalcxr.randomness import Draws
from causalcxr.runs import Run
from causalcxr.values import Batch, image_to_float

__all__ = ["PredictorObjective", "load_predictor", "predict_split", "save_predictor"]


class PredictorObjective(Objective):
    """Balanced cross-entropy (nats) or half the squared standardised error of every attribute."""

    needs_image = True

    def __init__(self, predictor: NetworkPredictor, image: str):
        super().__init__()
        self.predictor, self.image = predictor, image
        self.names = tuple(variable.name for variable in predictor.variables)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        image = image_to_float(batch[self.image])
        if self.training:
            image = augment(image, self.predictor.config.augment, draws)
        return self.predictor.losses(self.predictor.features(image), batch)


@torch.no_grad()
def predict_split(
    predictor: Predictor, rows: Split, calibrated: bool = True, strength: float = 0.0, draws: Draws | None = None
) -> Prediction:
    """The predictions on all images of a split, on the CPU; without calibration what `calibrate` needs.

    `strength`: of the augmentation of what the predictor is shown.
    """
    parts = []
    for images in rows.images():
        shown = images.to(predictor.temperature.device)
        if strength:
            shown = augment(image_to_float(shown), strength, draws or Draws(device=shown.device))
        features = predictor.features(shown)
        parts.append(predictor.predict(features) if calibrated else predictor.heads(features))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def calibrate_on(predictor: Predictor, rows: Split) -> None:
    """Temperature and spread from a split that the predictor was not trained on."""
    calibrate(predictor, predict_split(predictor, rows, calibrated=False), rows.attributes)


def save_predictor(run: Run, role: str, predictor: NetworkPredictor) -> None:
    """Write `predictor.safetensors` or `evaluator.safetensors` into the run."""
    metadata: dict[str, Any] = {
        "attributes": [variable.name for variable in predictor.variables],
        "config": asdict(predictor.config),
        "fingerprint": predictor.fingerprint(),
    }
    save_tensors(run.folder / f"{role}.safetensors", predictor.state_dict(), metadata)


def load_predictor(run: Run, role: str) -> NetworkPredictor:
    """A run's trained predictor or evaluator, frozen. Raises RunError: not trained, broken, or another shape."""
    path = run.folder / f"{role}.safetensors"
    if not path.exists():
        raise RunError(f"run '{run.folder}' has no {role}; add the stage 'predictors' to train.stages and train")
    predictor = build_predictor(role, run.config, run.graph)
    tensors, _ = load_tensors(path)
    expected = {name: tensor.shape for name, tensor in predictor.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise RunError(f"'{path}' does not fit its configuration; train again with another run=")
    predictor.load_state_dict(tensors)
    return predictor.eval().requires_grad_(False)
