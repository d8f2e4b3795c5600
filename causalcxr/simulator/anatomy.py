"""A subject's geometry: the numbers that describe the shapes, from noise and attributes.

Lengths are in half image widths (about 20 cm), in the body's own coordinates before the per-subject warp: x to
the image's right (the patient's left), y downwards, the middle of the image at (0, 0).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalcxr.simulator.equations import DEFAULT, Knobs, effusion_volume

__all__ = ["BLUNTING_VOLUME", "HIDING_VOLUME", "REFERENCE_AGE", "SULCUS", "Geometry", "geometry"]

REFERENCE_AGE = 50.0  # the age at which the stated sizes of men and women hold
BLUNTING_VOLUME = 160.0  # mL below which fluid lies behind the dome, unseen
HIDING_VOLUME = 500.0  # mL at which the fluid covers the top of the dome
SULCUS = 0.28  # from the top of the dome down to the lateral angle


@dataclass(frozen=True)
class Geometry:
    """Numbers of every subject, each `(B, 1)`. Sides are the patient's: `right` is on the image's left."""

    chest_half_width: Tensor
    chest_depth: Tensor
    body_depth: Tensor
    apex: Tensor
    base: Tensor
    wall: Tensor
    shoulder: Tensor
    dome_right: Tensor
    dome_left: Tensor
    heart_width: Tensor
    heart_elongation: Tensor
    heart_tilt: Tensor
    knob_radius: Tensor
    unfolding: Tensor
    kyphosis: Tensor
    bone: Tensor
    rib_spacing: Tensor
    rib_phase: Tensor
    rib_slope: Tensor
    rib_width: Tensor
    clavicle_height: Tensor
    clavicle_slope: Tensor
    spine_bend: Tensor
    spine_shift: Tensor
    breast: Tensor
    breast_size: Tensor
    breast_height: Tensor
    fluid_right: Tensor
    fluid_left: Tensor
    stomach_size: Tensor
    stomach_place: Tensor
    supine: Tensor


def geometry(u: Mapping[str, Tensor], p: Mapping[str, Tensor], knobs: Knobs = DEFAULT) -> Geometry:
    """The geometry of subjects with noise `u` and attributes `p`, in the dtype of `p["age"]`."""
    male = p["sex"].to(torch.float64)
    age = p["age"].to(torch.float64)
    view = p["view"].to(torch.float64) if "view" in p else torch.zeros_like(age)
    decades = (age - REFERENCE_AGE) / 10.0
    spread = knobs.variation
    chest, build, heart, ribs = (spread * u[name] for name in ("chest", "build", "heart", "ribs"))
    inspiration, clavicles, spine, breast = (
        spread * u[name] for name in ("inspiration", "clavicles", "spine", "breast")
    )

    half_width = 0.69 + 0.06 * knobs.sex_chest_width * (male - 0.5) + 0.022 * chest[:, 0].clamp(-2.5, 2.5)
    ratio = 0.4595 - 0.015 * knobs.sex_heart * (male - 0.5) + 0.012 * knobs.age_heart * decades
    ratio = (ratio + 0.022 * heart[:, 0].clamp(-2.5, 2.5)) * (1.0 + 0.1 * view)
    thickness = build[:, 0].clamp(-2, 2.5)
    kyphosis = 0.010 * knobs.age_kyphosis * decades
    chest_depth = 0.80 + 0.05 * chest[:, 2] + 0.4 * kyphosis
    dome = 0.36 - 0.05 * inspiration[:, 0].clamp(-2.5, 2.5) - 0.05 * view
    right, left = _fluid_heights(u, p, knobs)
    numbers = {
        "chest_half_width": half_width,
        "chest_depth": chest_depth,
        "body_depth": chest_depth + 0.20 + 0.05 * thickness,
        "apex": -0.80 + 0.03 * chest[:, 1] + kyphosis,
        "base": dome + SULCUS,
        # The outline of the torso is the same for both sexes: a narrower rib cage has a thicker wall.
        "wall": 0.19 + 0.04 * thickness - 0.06 * knobs.sex_chest_width * (male - 0.5),
        "shoulder": 0.04 * build[:, 1] + 0.5 * kyphosis,
        "dome_right": dome,
        "dome_left": dome + 0.04 + 0.02 * inspiration[:, 1],
        "heart_width": ratio * 2.0 * half_width,
        "heart_elongation": 0.92 + 0.06 * heart[:, 1],
        "heart_tilt": 0.45 + 0.10 * heart[:, 2],
        "knob_radius": 0.072 + 0.0075 * knobs.age_aorta * decades + 0.006 * spread * u["aorta"].clamp(-2.5, 2.5),
        "unfolding": 0.012 * knobs.age_aorta * decades,
        "kyphosis": kyphosis,
        "bone": _bone_density(male, age, knobs) * (1.0 + 0.08 * spread * u["bone"].clamp(-3, 3)),
        "rib_spacing": 0.134 + 0.006 * ribs[:, 0],
        "rib_phase": 0.25 * ribs[:, 1],
        "rib_slope": 0.17 + 0.05 * ribs[:, 2],
        "rib_width": 0.020 + 0.002 * ribs[:, 3],
        "clavicle_height": -0.60 + 0.03 * clavicles[:, 0] + 0.8 * kyphosis,
        "clavicle_slope": 0.24 + 0.08 * clavicles[:, 1],
        "spine_bend": 0.02 * spine[:, 0],
        "spine_shift": 0.01 * spine[:, 1],
        "breast": knobs.sex_breast * (1.0 - male),
        "breast_size": 0.29 + 0.03 * breast[:, 0].clamp(-2, 2.5),
        "breast_height": 0.34 + 0.04 * breast[:, 1] + 0.03 * breast[:, 2],
        "fluid_right": right,
        "fluid_left": left,
        "stomach_size": 0.07 + 0.07 * u["stomach"][:, 0],
        "stomach_place": 0.24 + 0.08 * u["stomach"][:, 1],
        "supine": view,
    }
    return Geometry(**{name: value.to(p["age"].dtype)[:, None] for name, value in numbers.items()})


def _bone_density(male: Tensor, age: Tensor, knobs: Knobs) -> Tensor:
    """Mineral relative to a young adult's: from 55 on it falls by 1.6 % a year in women and by .8 % in men."""
    beyond = age - 55.0
    years = (beyond + torch.sqrt(beyond * beyond + 16.0)) / 2.0
    return torch.exp(-knobs.age_bone * (0.016 - 0.008 * male) * years)


def _fluid_heights(u: Mapping[str, Tensor], p: Mapping[str, Tensor], knobs: Knobs) -> tuple[Tensor, Tensor]:
    """Height of the fluid above the lateral angle on the right and on the left.

    Below BLUNTING_VOLUME it hides behind the dome; at HIDING_VOLUME it covers the dome's top. One side is fuller
    (holds the volume); in half of the subjects the other holds a share of it.
    """
    volume = effusion_volume(u, p) * knobs.finding_volume
    share = (u["effusion_share"] - 0.5).clamp(min=0.0) / 0.5
    fuller, other = _height(volume), _height(volume * share)
    on_right = u["effusion_side"] < 0.55
    return torch.where(on_right, fuller, other), torch.where(on_right, other, fuller)


def _height(volume: Tensor) -> Tensor:
    beyond = (volume - BLUNTING_VOLUME) / (HIDING_VOLUME - BLUNTING_VOLUME)
    seen = (beyond + torch.sqrt(beyond * beyond + 0.002)) / 2.0
    # Higher up the chest is wider than the angle, so a litre raises the level less.
    return SULCUS * 1.48 * seen / (1.0 + 0.35 * seen)
