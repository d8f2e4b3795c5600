"""From values by row to what is reported: each a value with its interval, n and definition."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from causalcxr.metrics import classifiers, composition, exact, likelihood
from causalcxr.metrics.attributes import INTERVENTIONAL_DEFINITION
from causalcxr.metrics.entries import Entry, Key, Metrics
from causalcxr.metrics.intervals import Interval, mean_interval, median_interval, ratio_interval
from causalcxr.metrics.targets import define_target

__all__ = ["define", "describe_intervals", "entry", "summarise"]

NOISE_TREATMENTS = {
    "kept": "kept (a single cycle is then exact by construction)",
    "off": "set to 0",
    "redrawn": "drawn anew",
}
EFFECT_SIZE_DEFINITION = (
    "Size of the direct effect of do({name} = a drawn other value): root mean square of the image's change in "
    "grey levels (0 to 255), mean over rows. Made by: {whose}."
)
MINIMALITY_DEFINITION = (
    "Minimality: mean absolute change of a pixel in grey levels (0 to 255) under the direct effect of "
    "do({name} = a drawn other value); of two that are as effective the smaller is better. Made by: {whose}."
)
MAKERS = {
    "model": "the model",
    "expected": "the model, mean over several draws of its noise",
    "exact": "the exact counterfactual itself",
    "did_nothing": "the unchanged image",
}


def summarise(rows: Mapping[Key, Any], patients: Any) -> Metrics:
    """Statistics of values by row `(N,)`; a ratio of sums where a row has two, `(N, 2)`."""
    found: Metrics = {}
    for key, values in rows.items():
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 2:
            interval = ratio_interval(values[:, 0], values[:, 1], patients)
        elif key[-1] in ("error_median", "condition"):
            interval = median_interval(values, patients)
        else:
            interval = mean_interval(values, patients)
        found[key] = entry(interval, define(key))
    return found


def describe_intervals(intervals: Mapping[Key, Interval]) -> Metrics:
    """Intervals as they stand in metrics.json, with their definitions."""
    return {key: entry(interval, define(key)) for key, interval in intervals.items()}


def entry(interval: Interval, definition: str) -> Entry:
    """How a value stands in metrics.json."""
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "definition": definition,
    }


def define(key: Key) -> str:
    """The definition of a metric, in words."""
    match key:
        case ("image", "bits_per_dimension"):
            return likelihood.IMAGE_DEFINITION
        case ("image", "training_loss"):
            return likelihood.LOSS_DEFINITION
        case ("attributes", _, "log_likelihood"):
            return likelihood.ATTRIBUTE_DEFINITION
        case ("composition", mode, cycles):
            times = "once" if cycles == "1" else f"{cycles} times in a row"
            return composition.COMPOSITION_DEFINITION.format(cycles=times, mode=NOISE_TREATMENTS[mode])
        case ("reversibility", name):
            return composition.REVERSIBILITY_DEFINITION.format(name=name)
        case ("effect_size", who, name):
            return EFFECT_SIZE_DEFINITION.format(name=name, whose=MAKERS[who])
        case ("minimality", who, name):
            return MINIMALITY_DEFINITION.format(name=name, whose=MAKERS[who])
        case ("classifier", who, name, what):
            return classifiers.CLASSIFIER_DEFINITIONS[what].format(who=who, name=name)
        case ("calibration", who, name, when):
            return classifiers.CALIBRATION_DEFINITION.format(who=who, name=name, when=when)
        case ("exact", who, name, "alpha", other):
            right = "1" if name == other else "0"
            return exact.ALPHA_DEFINITION.format(name=name, other=other, right=right) + _of(who)
        case ("exact", who, name, error):
            return exact.ERROR_DEFINITIONS[error].format(name=name) + _of(who)
        case ("exact", "condition"):
            return exact.CONDITION_DEFINITION
        case ("interventional", do, name, statistic, who):
            whose = "the simulator" if who == "exact" else "the model"
            return INTERVENTIONAL_DEFINITION.format(statistic=statistic, name=name, do=do, who=whose)
    return define_target(key)


def _of(who: str) -> str:
    if who == "model":
        return ""
    return f" {'Made' if who == 'expected' else 'Yardstick: made'} is {MAKERS[who]}."
