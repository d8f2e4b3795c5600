"""Auxiliary classifiers: networks, calibration, adapters for other models, outputs as nodes of the graph."""

from causalcxr.predictors.adapters import AdaptedPredictor, Output, from_torchxrayvision
from causalcxr.predictors.calibration import (
    Reliability,
    calibrate,
    calibrate_on,
    expected_calibration_error,
    predict_split,
    reliability,
)
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.outputs import OutputBatch, OutputModel
from causalcxr.predictors.predictor import NetworkPredictor, Prediction, Predictor

__all__ = [
    "AdaptedPredictor",
    "NetworkPredictor",
    "Output",
    "OutputBatch",
    "OutputModel",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Reliability",
    "calibrate",
    "calibrate_on",
    "expected_calibration_error",
    "from_torchxrayvision",
    "predict_split",
    "reliability",
]
