"""Mechanisms: one structural equation per variable, all with the contract of `base.Mechanism`."""

from causalcxr.mechanisms.base import Mechanism, ParentEncoder
from causalcxr.mechanisms.categorical import CategoricalMechanism, gumbel_posterior
from causalcxr.mechanisms.flow import Flow, FlowConfig, FlowNoise
from causalcxr.mechanisms.hvae import HVAE, Elbo, HVAEConfig, HVAENoise
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise, Inferred
from causalcxr.mechanisms.likelihood import bits_per_dimension, discretised_gaussian_log_prob
from causalcxr.mechanisms.severity import Causes, Severity, SeverityConfig
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.mechanisms.template import Template

__all__ = [
    "HVAE",
    "CategoricalMechanism",
    "Causes",
    "Elbo",
    "Flow",
    "FlowConfig",
    "FlowNoise",
    "HVAEConfig",
    "HVAENoise",
    "ImageMechanism",
    "ImageNoise",
    "Inferred",
    "Mechanism",
    "ParentEncoder",
    "Severity",
    "SeverityConfig",
    "SplineConfig",
    "SplineMechanism",
    "Template",
    "bits_per_dimension",
    "discretised_gaussian_log_prob",
    "gumbel_posterior",
]
