"""Calibration: temperature scaling on the validation split, and how far stated and observed frequencies differ."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.data.cohort import Split
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.augment import augment
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.randomness import Draws
from causalcxr.values import Batch

__all__ = [
    "Reliability",
    "calibrate",
    "calibrate_on",
    "confidence_bins",
    "expected_calibration_error",
    "predict_split",
    "reliability",
]

BINS = 15
TEMPERATURES = (0.25, 10.0)  # lowest and highest; labels told apart without an error would ask for 0


@dataclass(frozen=True)
class Reliability:
    """By bin of confidence, `(15,)` each: rows, mean confidence and share of right answers (NaN without rows)."""

    rows: Tensor
    confidence: Tensor
    accuracy: Tensor


@torch.no_grad()
def calibrate(predictor: Predictor, outputs: Prediction, labels: Batch) -> None:
    """Set each label's temperature and each number's spread from uncalibrated outputs on the validation split.

    The temperature minimises the cross-entropy (Guo et al. 2017), by bisection on the derivative in 1/T, in which
    it is convex. The spread is the root mean square error in natural units.
    """
    for name, output in outputs.items():
        i = predictor.index[name]
        if predictor.variables[i].is_discrete:
            predictor.temperature[i] = 1.0
            predictor.temperature[i] = _best_temperature(predictor.calibrated(name, output), labels[name])
        else:
            predictor.spread[i] = (output - labels[name]).double().square().mean().sqrt().clamp_min(1e-6)


def calibrate_on(predictor: Predictor, rows: Split) -> None:
    """Temperature and spread from a split that the predictor was not trained on."""
    calibrate(predictor, predict_split(predictor, rows, calibrated=False), rows.attributes)


@torch.no_grad()
def predict_split(
    predictor: Predictor, rows: Split, calibrated: bool = True, strength: float = 0.0, draws: Draws | None = None
) -> Prediction:
    """The predictions on all images of a split, on the CPU; without calibration what `calibrate` needs.

    `strength`: of the augmentation of the images that the predictor is shown.
    """
    parts = []
    for images in rows.images():
        shown = images.to(predictor.temperature.device)
        if strength:
            shown = augment(image_to_float(shown), strength, draws or Draws(device=shown.device))
        features = predictor.features(shown)
        parts.append(predictor.predict(features) if calibrated else predictor.heads(features))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """The reliability diagram of logits `(N, K)` and labels `(N,)`."""
    confidence, guess = F.softmax(logits.double(), dim=1).max(dim=1)
    place = confidence_bins(confidence)
    rows = torch.bincount(place, minlength=BINS).double()
    stated = torch.bincount(place, weights=confidence, minlength=BINS)
    right = torch.bincount(place, weights=(guess == labels).double(), minlength=BINS)
    return Reliability(rows, stated / rows, right / rows)


def confidence_bins(confidence: Tensor) -> Tensor:
    """The bin `(N,)` of each confidence in [0, 1]."""
    return (confidence * BINS).long().clamp_max(BINS - 1)


def expected_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """`sum_b (n_b / N) |accuracy_b - confidence_b|` of logits `(N, K)` and labels `(N,)`."""
    found = reliability(logits, labels)
    gaps = (found.accuracy - found.confidence).abs().nan_to_num(0.0)
    return float((found.rows * gaps).sum() / found.rows.sum())


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    logits = logits.double()
    low, high = (-math.log(t) for t in reversed(TEMPERATURES))  # of log 1/T
    for _ in range(50):
        middle = (low + high) / 2
        probability = F.softmax(logits * torch.tensor(middle).exp(), dim=1)
        right = logits.gather(1, labels[:, None])[:, 0]
        slope = ((probability * logits).sum(dim=1) - right).mean()  # of the cross-entropy in 1/T
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(torch.tensor(-low).exp())
