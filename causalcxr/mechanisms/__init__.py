"""Mechanisms: one structural equation per variable, all with the contract of `base.Mechanism`."""

from causalcxr.mechanisms.base import Mechanism, ParentEncoder
from causalcxr.mechanisms.categorical import CategoricalMechanism, gumbel_posterior
from causalcxr.mechanisms.flow import Flow, FlowConfig, FlowNoise
from causalcxr.mechanisms.hvae import HVAE, Elbo, HVAEConfig, HVAENoise
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise, Inferred
from causalcxr.mechanisms.likelihood import bits_per_dimension, discretised_gaussian_log_prob
from causalcxr.mechanisms.registry import IMAGE_MECHANISMS, MechanismsConfig
from causalcxr.mechanisms.spline import SplineConfig, SplineMechanism
from causalcxr.mechanisms.template import Template, TemplateConfig

__all__ = [
    "HVAE",
    "IMAGE_MECHANISMS",
    "CategoricalMechanism",
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
    "MechanismsConfig",
    "ParentEncoder",
    "SplineConfig",
    "SplineMechanism",
    "Template",
    "TemplateConfig",
    "bits_per_dimension",
    "discretised_gaussian_log_prob",
    "gumbel_posterior",
]
