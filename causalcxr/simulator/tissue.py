"""Path lengths of an X-ray through the body: how much soft tissue, lung, fluid and bone lies behind each pixel.

Shapes are soft: an edge is a smoothstep (a polynomial, exactly zero outside its width) and a thickness is the
root of a smooth positive part, so images are differentiable and equal bit for bit on any batch.
Coordinates x, y are `(B, P)`; numbers of a subject are `(B, 1)`; lengths in half image widths (about 20 cm).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from causalcxr.simulator.anatomy import SULCUS, Geometry

__all__ = ["Paths", "cage_half_width", "dome_line", "fluid_cover", "heart_level", "paths"]

LUNG_DENSITY = 0.25  # of soft tissue


@dataclass(frozen=True)
class Paths:
    """Lengths `(B, P)`: the whole body's, what of it attenuates as soft tissue, and bone."""

    body: Tensor
    soft: Tensor
    bone: Tensor


def paths(g: Geometry, phases: Tensor, x: Tensor, y: Tensor, pixel: float) -> Paths:
    """All tissues. `phases` `(B, 8)` places the lung vessels; edges are averaged over the width of a `pixel`."""
    side, is_left = x.abs(), x > 0
    round_chest = 1.0 - (side / g.chest_half_width).square() - cage_rise(g, y)
    lung = _lung(g, x, y, side, is_left, round_chest, pixel)
    aerated = 1.0 - fluid_cover(g, side, y, is_left, pixel)
    missing = lung * aerated * (1.0 - LUNG_DENSITY - _vessels(phases, side, y, is_left))
    body = _body(g, side, y)
    soft = body - missing + _breasts(g, side, y) - _air(g, x, y)
    bone = _ribs(g, side, y, round_chest, pixel) + _clavicles(g, side, y, pixel)
    bone = g.bone * (bone + _spine(g, x, y, pixel) + _shoulder_bones(g, side, y, pixel))
    return Paths(body, soft, bone)


def step(distance: Tensor, softness: float) -> Tensor:
    """0 below -softness, 1 above it, smooth between."""
    t = (distance * (0.5 / softness) + 0.5).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(squared: Tensor) -> Tensor:
    """1 at squared distance 0, falling smoothly to 0 at 1."""
    t = (1.0 - squared).clamp(min=0.0)
    return t * t


def chord(q: Tensor, softness: float = 0.02) -> Tensor:
    """The root of the positive part of q: the thickness of a round body, with a soft edge."""
    q = q.clamp(min=-4.0)  # far outside, float32 would round the sum to 0, where the root has no derivative
    return torch.sqrt((q + torch.sqrt(q * q + softness * softness)) * 0.5)


def soft_edge(pixel: float, width: float) -> float:
    """Softness of an edge of its own `width` averaged over a pixel."""
    return (width * width + 0.6 * pixel * pixel) ** 0.5


def cage_rise(g: Geometry, y: Tensor) -> Tensor:
    """How far the rib cage has narrowed towards its apex: 0 from the base down, 1 at the apex."""
    t = ((g.base - y) / (g.base - g.apex)).clamp(min=0.0)
    return t * t * t * torch.sqrt(t + 1e-6)


def cage_half_width(g: Geometry, y: Tensor) -> Tensor:
    """Half the inner width of the chest at the height y."""
    return g.chest_half_width * torch.sqrt((1.0 - cage_rise(g, y)).clamp(min=0.0))


def dome_line(g: Geometry, side: Tensor, is_left: Tensor) -> Tensor:
    """Height of the diaphragm: rounded on top, falling ever more steeply to the lateral angle."""
    z = (side / g.chest_half_width - 0.38) / 0.62
    z = z * z
    top = torch.where(is_left, g.dome_left, g.dome_right)
    return top + SULCUS * z * (0.65 + 0.35 * z)


def fluid_cover(g: Geometry, side: Tensor, y: Tensor, is_left: Tensor, pixel: float) -> Tensor:
    """Share of the lung's depth that fluid fills: 1 below a level that climbs at the chest wall (the meniscus).

    Above the level a thin film of fluid and lung that it squeezes make a veil, which fades upwards.
    """
    height = torch.where(is_left, g.fluid_left, g.fluid_right)
    floor = torch.where(is_left, g.dome_left, g.dome_right) + SULCUS
    near_wall = (side / g.chest_half_width).clamp(max=1.0)
    near_wall = near_wall * near_wall
    climb = 0.6 * height * near_wall * near_wall
    depth = y - (floor - height - climb)
    full = step(depth - 0.012, soft_edge(pixel, 0.03))
    veil = 0.45 * bump((depth.clamp(max=0.0) / (0.02 + 1.5 * height)).square()) * step(height - 0.03, 0.03)
    return full + (1.0 - full) * veil


def heart_level(g: Geometry, x: Tensor, y: Tensor) -> Tensor:
    """1 at the heart's middle, 0 on its outline, negative outside: a sheared ellipse, apex to the left."""
    half = g.heart_width / 2.0
    tall = half * g.heart_elongation
    wide = torch.sqrt(half * half - (g.heart_tilt * tall).square())
    down = y - heart_middle(g)
    across = x - 0.36 * half - g.heart_tilt * down
    return 1.0 - (across / wide).square() - (down / tall).square()


def heart_middle(g: Geometry) -> Tensor:
    """Height of the heart's middle: it rests on the diaphragm."""
    return g.dome_left - 0.60 * g.heart_elongation * g.heart_width / 2.0


def _body(g: Geometry, side: Tensor, y: Tensor) -> Tensor:
    """Torso with shoulders and a wider belly, neck, and arms that hang a little apart."""
    upper = step(-0.30 + g.shoulder - y, 0.30)
    half_width = g.chest_half_width + g.wall + 0.34 * upper
    depth = g.body_depth + 0.10 * step(y - 0.45, 0.35)
    wide = (side / half_width).square()
    torso = depth * chord(1.0 - wide * wide * wide)
    slope = (side - 0.24).clamp(min=0.0)
    top = y - (-0.93 + g.shoulder + 0.46 * slope * slope + 0.10 * slope)
    shade = (1.0 - top / 0.8).clamp(min=0.0)
    torso = torso * chord(1.0 - shade * shade, 0.06)
    neck = 0.66 * chord(1.0 - (side / 0.28).square(), 0.05) * step(-0.66 + g.shoulder - y, 0.25)
    middle = g.chest_half_width + g.wall + 0.27 + 0.10 * y
    arm = 0.40 * chord(1.0 - ((side - middle) / 0.16).square(), 0.05) * step(y + 0.40, 0.20)
    return torch.sqrt(torso * torso + neck * neck + arm * arm + 1e-8)


def _lung(
    g: Geometry, x: Tensor, y: Tensor, side: Tensor, is_left: Tensor, round_chest: Tensor, pixel: float
) -> Tensor:
    """Length of lung, or of fluid in its place."""
    above_dome = step(dome_line(g, side, is_left) - y, soft_edge(pixel, 0.012))
    heart = step(heart_level(g, x, y) * g.heart_width * 0.25, soft_edge(pixel, 0.02))
    depth = chord(round_chest)
    depth = g.chest_depth * depth * (1.7 - 0.7 * depth)  # flatter than an ellipse: lungs are dark up to the wall
    return depth * above_dome * (1.0 - 0.85 * heart) * (1.0 - _mediastinum(g, x, y, pixel))


def _mediastinum(g: Geometry, x: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Share of the depth taken by the great vessels: a column, the aortic knob, the descending aorta, hila."""
    edge = soft_edge(pixel, 0.02)
    line = x - _spine_line(g, y)
    low = (y + 0.40).clamp(0.0, 0.45)
    column = step(0.085 + 0.10 * low + 0.06 * (-0.55 - y).clamp(min=0.0) - line.abs(), edge)
    knob_x, knob_y = line - 0.070 - 0.6 * g.unfolding, y + 0.33 - g.kyphosis
    knob = step(g.knob_radius - torch.sqrt(knob_x * knob_x + knob_y * knob_y + 1e-6), edge)
    trunk = step((1.0 - ((line - 0.035) / 0.165).square() - ((y + 0.03) / 0.27).square()) * 0.07, edge)
    descending = step(knob_y, 0.05) * step(0.105 + g.unfolding - line, edge) * step(line, edge)
    right_hilum = 0.45 * bump(((line + 0.15) / 0.11).square() + ((y + 0.07) / 0.19).square())
    left_hilum = 0.40 * bump(((line - 0.17) / 0.10).square() + ((y + 0.12) / 0.17).square())
    open_share = (1.0 - 0.95 * column) * (1.0 - 0.80 * knob) * (1.0 - 0.6 * descending) * (1.0 - 0.75 * trunk)
    return 1.0 - open_share * (1.0 - right_hilum) * (1.0 - left_hilum)


def _vessels(phases: Tensor, side: Tensor, y: Tensor, is_left: Tensor) -> Tensor:
    """Density of lung markings: ridges that radiate from the hila, branch, and thin out."""
    across, down = side - 0.11, y + 0.08
    radius = torch.sqrt(across * across + down * down + 1e-4)
    angle = down / (radius + across + 0.05)  # tangent of half the angle, no branch cut in the lung
    angle = torch.where(is_left, angle, -angle)
    total = torch.zeros_like(y)
    for i, (count, weight) in enumerate(((6.0, 0.22), (13.0, 0.16))):
        turn = 6.2832 * phases[:, 2 * i : 2 * i + 1].to(y.dtype)
        bend = 6.2832 * phases[:, 2 * i + 1 : 2 * i + 2].to(y.dtype)
        wave = torch.cos(count * angle + turn + 1.2 * torch.sin(6.0 * radius + bend)) * 0.5 + 0.5
        ridge = wave * wave
        total = total + weight * ridge * ridge
    return total * bump((radius * 1.5).square())


def _ribs(g: Geometry, side: Tensor, y: Tensor, round_chest: Tensor, pixel: float) -> Tensor:
    """Posterior ribs arch out and down from the spine; anterior ends, fainter, run in and down from the wall."""
    out = side / g.chest_half_width
    square = out * out
    inside = step(round_chest + 0.05, 0.08)
    soft = soft_edge(pixel, 0.012)
    level = (y - g.apex) / g.rib_spacing
    arch = (g.rib_slope * square * (0.7 + 0.6 * square) - 0.12 * out) / g.rib_spacing
    posterior = _stripe(level - arch + g.rib_phase, g, soft, 1.0)
    posterior = posterior * step(0.60 - y, 0.12) * step(side - 0.05, 0.03)
    inward = (1.0 - out).clamp(min=0.0)
    drop = (0.50 * inward + 0.15 * inward * inward) / g.rib_spacing
    anterior = _stripe(level * 0.80 - drop + g.rib_phase + 0.4, g, soft, 1.25)
    anterior = 0.40 * anterior * step(out - 0.50, 0.15) * step(0.30 - y, 0.12)
    tangential = 1.0 + 0.8 * step(0.25 - round_chest, 0.25)
    return 0.034 * (posterior + anterior) * inside * tangential


def _stripe(level: Tensor, g: Geometry, soft: float, widen: float) -> Tensor:
    distance = (level - torch.round(level)).abs() * g.rib_spacing
    return step(widen * g.rib_width - distance, soft)


def _clavicles(g: Geometry, side: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Two bars from the breastbone out and up to the shoulder, bent like an S."""
    out = side - 0.08
    line = g.clavicle_height + 0.08 - g.clavicle_slope * out - 0.9 * out * (out - 0.32) * (out - 0.66)
    half = 0.022 + 0.014 * bump((out / 0.16).square())
    bar = step(half - (y - line).abs(), soft_edge(pixel, 0.010))
    return 0.075 * bar * step(out, 0.02) * step(0.70 - out, 0.06)


def _spine_line(g: Geometry, y: Tensor) -> Tensor:
    return g.spine_shift + g.spine_bend * torch.sin(2.2 * y)


def _spine(g: Geometry, x: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Vertebral bodies with discs between; narrower in the neck."""
    line = (x - _spine_line(g, y)).abs()
    half = 0.072 + 0.018 * y.clamp(-1.0, 1.0)
    level = y / (0.125 + 0.02 * y.clamp(-1.0, 1.0))
    disc = (level - torch.round(level)).abs()
    body = step(half - line, soft_edge(pixel, 0.02))
    return 0.075 * body * (0.65 + 0.35 * step(0.36 - disc, soft_edge(4.0 * pixel, 0.10)))


def _shoulder_bones(g: Geometry, side: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Head and shaft of the humerus and, fainter, the blade of the scapula beside the lungs."""
    down = y - g.shoulder
    middle = g.chest_half_width + g.wall + 0.16
    head = chord(1.0 - ((side - middle) / 0.12).square() - ((down + 0.50) / 0.13).square(), 0.1)
    shaft = step(0.05 - (side - middle - 0.10 - 0.10 * y).abs(), soft_edge(pixel, 0.015)) * step(down + 0.42, 0.08)
    edge = side - (0.68 - 0.14 * g.supine) - 0.15 * (down + 0.4)
    blade = step(edge, soft_edge(pixel, 0.02)) * step(0.18 - edge, 0.10) * step(0.30 - (down + 0.36).abs(), 0.10)
    return 0.10 * head + 0.06 * shaft + 0.030 * blade


def _breasts(g: Geometry, side: Tensor, y: Tensor) -> Tensor:
    """Two round shadows over the lower lungs, sharpest along their lower border."""
    across = (side - 0.58 * g.chest_half_width - 0.06) / g.breast_size
    down = (y - g.breast_height) / (g.breast_size * 0.95)
    lower, upper = down.clamp(min=0.0), down.clamp(max=0.0) * 0.8
    return 0.17 * g.breast * chord(1.0 - across.square() - lower.square() - upper.square(), 0.05)


def _air(g: Geometry, x: Tensor, y: Tensor) -> Tensor:
    """Trachea and the gastric bubble: tissue that is missing."""
    line = (x - _spine_line(g, y) + 0.015) / 0.05
    trachea = 0.12 * bump(line.square()) * step(-0.25 - y, 0.08)
    down = (y - g.dome_left - 0.045 - 0.6 * g.stomach_size) / (0.7 * g.stomach_size)
    bubble = 0.26 * chord(1.0 - ((x - g.stomach_place) / g.stomach_size).square() - down.square(), 0.1)
    return trachea + bubble * step(y - g.dome_left - 0.03, 0.02)
