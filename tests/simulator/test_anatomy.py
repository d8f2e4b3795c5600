"""The geometry has the sizes that the documentation states, and the warp is a diffeomorphism."""

import pytest
import torch

from causalcxr import simulator
from causalcxr.simulator import Knobs
from causalcxr.simulator.anatomy import Geometry, geometry
from causalcxr.simulator.tissue import cage_half_width, dome_line, fluid_cover, heart_level
from causalcxr.simulator.warp import body_coordinates, pixel_grid

STILL = Knobs(variation=0.0)
FINE = 2001


def shapes(do: dict, n: int = 1, knobs: Knobs = STILL) -> Geometry:
    u = simulator.noise(0, range(n))
    p = simulator.attributes(u, do, knobs)
    return geometry(u, {**p, "age": p["age"].double()}, knobs)


def width_of_heart(g: Geometry) -> float:
    """Measured on the heart's silhouette, not read off a parameter."""
    grid = torch.linspace(-1, 1, FINE, dtype=torch.float64)
    x, y = grid.repeat(FINE)[None], grid.repeat_interleave(FINE)[None]
    inside = x[heart_level(g, x, y) > 0]
    return (inside.max() - inside.min()).item()


def width_of_chest(g: Geometry) -> float:
    y = torch.linspace(-1, 1, FINE, dtype=torch.float64)[None]
    return 2 * cage_half_width(g, y).max().item()


@pytest.mark.parametrize(("sex", "ratio"), [("female", 0.467), ("male", 0.452)])
@pytest.mark.parametrize("age", [30.0, 50.0, 80.0])
def test_cardiothoracic_ratio(sex: str, ratio: float, age: float) -> None:
    """Stated at 50 years, +.012 a decade. Tolerance: two steps of the grid over the width of the chest."""
    g = shapes({"sex": sex, "age": age})
    measured = width_of_heart(g) / width_of_chest(g)
    assert abs(measured - (ratio + 0.012 * (age - 50) / 10)) < 2 * (2 / FINE) / 1.3


def test_chest_is_wider_in_men() -> None:
    difference = width_of_chest(shapes({"sex": "male"})) - width_of_chest(shapes({"sex": "female"}))
    assert abs(difference / 2 - 0.06) < 1e-9


def test_stated_means_hold_in_a_varied_population() -> None:
    """5 standard errors (standard deviation of the ratio .022) of 2,000 subjects."""
    for sex, ratio in (("female", 0.467), ("male", 0.452)):
        g = shapes({"sex": sex, "age": 50}, 2000, Knobs())
        measured = g.heart_width / (2 * g.chest_half_width)
        assert abs(measured.mean() - ratio) < 5 * 0.022 / 2000**0.5
        assert 0.01 < measured.std() < 0.03


def test_bone_aorta_and_kyphosis_follow_age() -> None:
    ages = [30.0, 50.0, 55.0, 65.0, 80.0]
    women = [shapes({"sex": "female", "age": age}) for age in ages]
    men = [shapes({"sex": "male", "age": age}) for age in ages]
    for grown in ("knob_radius", "unfolding", "kyphosis"):
        values = [getattr(g, grown).item() for g in women]
        assert values == sorted(values)
    lost = [1 - g.bone.item() for g in women]
    assert lost[1] < 0.02  # hardly anything before 55
    assert abs((1 - women[4].bone.item() / women[3].bone.item()) - (1 - 0.984**15)) < 0.01  # 1.6 % a year after it
    assert (1 - women[4].bone.item()) > 1.8 * (1 - men[4].bone.item())


@pytest.mark.parametrize("side", ["right", "left"])
def test_fluid_blunts_the_angle_then_hides_the_dome(side: str) -> None:
    """Nothing at 140 mL, a blunted lateral angle from 175-200 mL, the dome hidden at 500 mL, not at 350."""

    def covered(volume: float) -> tuple[float, float]:
        """Height of fluid at the wall, above the lateral angle, and cover at the top of the dome."""
        u = simulator.noise(0, [0])
        u["severity"] = (torch.log(torch.tensor([volume / 200], dtype=torch.float64)) / 0.7) - 1
        u["effusion_side"] = torch.tensor([0.1 if side == "right" else 0.9], dtype=torch.float64)
        u["effusion_share"] = torch.zeros(1, dtype=torch.float64)
        p = simulator.attributes(u, {"finding": 1})
        assert abs(simulator.effusion_volume(u, p).item() - volume) < 1e-9 * volume
        g = geometry(u, {**p, "age": p["age"].double()}, STILL)
        y = torch.linspace(-0.2, 0.9, 1101, dtype=torch.float64)[None]
        is_left = torch.full_like(y, side == "left", dtype=torch.bool)
        wall, middle = g.chest_half_width.expand_as(y), torch.full_like(y, 0.38 * g.chest_half_width.item())
        angle = dome_line(g, wall, is_left)[0, 0].item()
        level = y[fluid_cover(g, wall, y, is_left, 0.0) > 0.5].min().item()
        top = dome_line(g, middle, is_left)
        return angle - level, fluid_cover(g, middle, top - 0.005, is_left, 0.0)[0, 0].item()

    assert covered(140)[0] < 0.005
    assert 0.01 < covered(175)[0] < covered(200)[0] < 0.10  # .05 is 1 cm
    assert covered(350)[1] < 0.7
    assert covered(500)[1] > 0.85
    assert covered(650)[1] > 0.99
    heights = [covered(v)[0] for v in (200, 300, 500, 800, 1500)]
    assert heights == sorted(heights)


def test_effusion_goes_to_either_side_or_both() -> None:
    g = shapes({"finding": 1}, 4000, Knobs())
    right, left = g.fluid_right.flatten() > 0.05, g.fluid_left.flatten() > 0.05
    only_right, only_left, both = ((right & ~left), (left & ~right), (right & left))
    assert only_right.double().mean() > only_left.double().mean() > both.double().mean() > 0.05


@pytest.mark.parametrize("extreme", [False, True])
def test_the_warp_is_one_to_one(extreme: bool) -> None:
    """Jacobian determinant above 0 everywhere, also for noise far outside what is ever drawn."""
    u = simulator.noise(1, range(400))
    if extreme:
        u = {**u, "position": 100 * u["position"].sign(), "warp": 100 * u["warp"].sign()}
    grid, h = pixel_grid(48, torch.float64), 1e-5
    x, y = grid.repeat(48), grid.repeat_interleave(48)
    right, left = body_coordinates(u, x + h, y), body_coordinates(u, x - h, y)
    below, above = body_coordinates(u, x, y + h), body_coordinates(u, x, y - h)
    by_x = [(b - a) / (2 * h) for a, b in zip(left, right, strict=True)]
    by_y = [(b - a) / (2 * h) for a, b in zip(above, below, strict=True)]
    determinant = by_x[0] * by_y[1] - by_x[1] * by_y[0]
    assert determinant.min() > 0.2
    assert determinant.std() > 0.01  # it is a warp, not the identity
