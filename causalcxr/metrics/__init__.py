"""Metrics as small functions; each file holds one idea, and the definition that is stored beside its values."""

from causalcxr.metrics.auroc import auroc_interval
from causalcxr.metrics.composition import grey_levels, reversibility
from causalcxr.metrics.exact import coefficients, error_norms, relative_error, size_in_grey_levels
from causalcxr.metrics.intervals import (
    Interval,
    absolute_interval,
    bootstrap,
    mean_interval,
    median_interval,
    percentile_interval,
    ratio_interval,
)
from causalcxr.metrics.realism import frechet_distance

__all__ = [
    "Interval",
    "absolute_interval",
    "auroc_interval",
    "bootstrap",
    "coefficients",
    "error_norms",
    "frechet_distance",
    "grey_levels",
    "mean_interval",
    "median_interval",
    "percentile_interval",
    "ratio_interval",
    "relative_error",
    "reversibility",
    "size_in_grey_levels",
]
