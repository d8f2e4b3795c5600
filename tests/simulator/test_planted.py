"""Planted biases: each changes what it says, of whom it says, and nothing else.

D ----> group ----> (marker, contrast, ...) ----> image        P(group = B | D) = q, P(B | not D) = 1 - q
"""

import math
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from causalcxr import simulator
from causalcxr.graph import load_graph
from causalcxr.simulator import Knobs
from causalcxr.simulator.planted import IMAGE_CHANNELS, LIMIT, REACH, marker_mask, zoom
from causalcxr.simulator.warp import pixel_grid
from causalcxr.support.errors import ConfigError

N = 40_000
EVEN: dict[str, Any] = {"finding_odds": 0.0, "finding_age": 0.0}  # prevalence 0.5, whatever the age
STRENGTH = {"exposure": 0.3, "contrast": 0.18, "texture": 0.08, "marker": 1.0, "near": 0.2, "far": 0.2}


@pytest.fixture(scope="module")
def u() -> dict[str, Tensor]:
    return simulator.noise(5, range(N))


def few(u: dict[str, Tensor], n: int = 64) -> dict[str, Tensor]:
    return {name: values[:n] for name, values in u.items()}


def planted(*channels: str, **more: float) -> Knobs:
    return Knobs(**EVEN, planted={"group": {**{c: STRENGTH[c] for c in channels}, **more}})


@pytest.mark.parametrize("channels", [*[(c,) for c in IMAGE_CHANNELS], ("marker", "contrast")])
def test_do_group_flips_nothing_but_the_planted_change(u: dict[str, Tensor], channels: tuple[str, ...]) -> None:
    """No attribute but the group; in the image nothing under A, and under B something for everyone."""
    some, knobs = few(u), planted(*channels, q=0.8)
    p = simulator.attributes(some, knobs=knobs)
    with_, without = (simulator.attributes(some, {"group": g}, knobs) for g in ("B", "A"))
    assert all(torch.equal(with_[name], without[name]) for name in p if name != "group")
    plain = simulator.render(some, simulator.attributes(some, knobs=Knobs(**EVEN)), 64, Knobs(**EVEN))
    assert torch.equal(simulator.render(some, without, 64, knobs), plain)
    changed = simulator.render(some, with_, 64, knobs) - plain
    assert (changed.abs().amax((1, 2, 3)) > 0.005).float().mean() > 0.9


def test_two_at_once_are_the_one_and_the_other(u: dict[str, Tensor]) -> None:
    """A marker lies on the film whatever its exposure: under it all is white, beside it the exposure's film."""
    some = few(u)
    both, exposed = planted("marker", "exposure"), planted("exposure")
    made = [simulator.counterfactual(some, {"group": "B"}, knobs=knobs) for knobs in (both, exposed)]
    grid = pixel_grid(64)
    mask = marker_mask(grid.repeat(64), grid.repeat_interleave(64), 2 / 64).view(64, 64)
    assert torch.equal(made[0][..., mask == 0], made[1][..., mask == 0])
    assert (made[0][..., mask == 1] == 1).all()
    area = 0.06 * 0.24 + 0.12 * 0.06  # of an L whose foot is drawn at its end
    assert abs(float(mask.sum()) * (2 / 64) ** 2 - area) < 0.001


@pytest.mark.parametrize("q", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_group_follows_the_finding_by_q(u: dict[str, Tensor], q: float) -> None:
    """Four standard errors; a finding's prevalence, and who has it, do not depend on q."""
    p = simulator.attributes(u, knobs=planted("marker", q=q))
    assert torch.equal(p["finding"], simulator.attributes(u, knobs=Knobs(**EVEN))["finding"])
    assert abs(p["finding"].double().mean() - 0.5) < 4 * 0.5 / N**0.5
    for finding, share in ((1, q), (0, 1 - q)):
        observed = p["group"][p["finding"] == finding].double().mean()
        assert abs(observed - share) < 4 * (q * (1 - q) / (N / 2)) ** 0.5


@pytest.mark.parametrize("q", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_oracle_on_the_severity_meets_every_bayes_figure(u: dict[str, Tensor], q: float) -> None:
    """Section 9 of the method, in closed form; five standard errors of a share of a quarter of the rows."""
    gap = {0.5: 0.0, 0.6: 0.098, 0.7: 0.205, 0.8: 0.334, 0.9: 0.521}[q]
    accuracy = {0.5: 0.841, 0.6: 0.846, 0.7: 0.861, 0.8: 0.888, 0.9: 0.930}[q]
    knobs = planted("marker", q=q)
    p = simulator.attributes(u, knobs=knobs)
    e, finding, group = simulator.severity(u, p), p["finding"] == 1, p["group"] == 1
    called = 2 * e + torch.where(group, 1, -1) * math.log(q / (1 - q)) > 0
    assert abs((called == finding).double().mean() - accuracy) < 5 * 0.5 / N**0.5
    for among in (finding, ~finding):
        rates = [called[among & of].double().mean() for of in (group, ~group)]
        fewest = min(int((among & of).sum()) for of in (group, ~group))
        assert abs(float(rates[0] - rates[1]) - gap) < 5 * (0.25 / fewest + 0.25 / N) ** 0.5 + 0.0005
    blind = (e > 0) == finding
    assert abs(blind.double().mean() - NormalDist().cdf(1)) < 5 * 0.37 / N**0.5


@pytest.mark.parametrize("name", ["sex", "race"])
def test_q_of_a_person_moves_the_finding(u: dict[str, Tensor], name: str) -> None:
    """P(finding | second label) = q at even odds, 1 - q for the other; race stands at 0, -1 and 1."""
    p = simulator.attributes(u, knobs=Knobs(**EVEN, planted={name: {"q": 0.7}}))
    expected = {"sex": (0.3, 0.7), "race": (0.5, 0.3, 0.7)}[name]
    for label, share in enumerate(expected):
        rows = p["finding"][p[name] == label].double()
        assert abs(rows.mean() - share) < 4 * (0.25 / len(rows)) ** 0.5
    assert simulator.graph(Knobs(planted={name: {"q": 0.7}}))["finding"].parents == (name, "age")


def test_the_graph_has_what_is_planted() -> None:
    graph = simulator.graph(Knobs(planted={"group": {"q": 0.7, "marker": 1.0, "view": 0.2}, "sex": {"far": 0.1}}))
    assert graph["group"].labels == ("A", "B") and graph["group"].parents == ("finding",)
    assert graph["view"].parents == ("group",)
    assert graph["image"].parents == ("sex", "race", "age", "finding", "group", "view")
    assert simulator.graph(Knobs(planted={})) == load_graph("chest")
    assert simulator.graph(Knobs(**EVEN))["finding"].parents == ()


def test_a_magnification_is_one_to_one_local_and_on_its_side(u: dict[str, Tensor]) -> None:
    """Jacobian by finite differences on a fine grid, at the largest amplitude there can be."""
    some = few(u, 40)
    grid = pixel_grid(512, torch.float64)
    x, y = grid.repeat(512), grid.repeat_interleave(512)
    p = {"group": torch.ones(40, dtype=torch.int64)}
    for channel in ("near", "far"):
        for strength in (0.25, -0.25):
            wide = {**some, "bump": some["bump"] * 3}
            mapped = zoom({"group": {channel: strength}}, wide, p, x.expand(40, -1), y.expand(40, -1))
            mx, my = (m.view(40, 512, 512) for m in mapped)
            step = 2 / 512
            dx, dy = (
                (m.diff(dim=2)[:, :-1] / step for m in (mx, my)),
                (m.diff(dim=1)[..., :-1] / step for m in (mx, my)),
            )
            (xx, yx), (xy, yy) = dx, dy
            assert (xx * yy - xy * yx).min() > 0.9 * (1 - LIMIT) ** 2
            moved = (mx.flatten(1) - x).abs() + (my.flatten(1) - y).abs() > 0
            on_right = some["effusion_side"] < 0.55
            middle = (x * moved).sum(1) / moved.sum(1).clamp(min=1)
            assert ((middle < 0) == (on_right if channel == "near" else ~on_right)).all()
            assert moved.double().mean(1).max() * 4 < 1.01 * math.pi * REACH**2


def test_underdiagnosis_is_of_the_record_and_not_of_the_film(u: dict[str, Tensor]) -> None:
    knobs = planted(underdiagnosis=0.4)
    p = simulator.attributes(u, knobs=knobs)
    written = simulator.recorded(u, p, knobs)
    sick = p["finding"] == 1
    for group, share in ((0, 0.0), (1, 0.4)):
        missed = (written["finding"] == 0)[sick & (p["group"] == group)].double().mean()
        assert abs(missed - share) < 4 * (0.24 / (N / 4)) ** 0.5 * (share > 0) + 1e-12
    assert (written["finding"][~sick] == 0).all()
    some = few(u)
    assert torch.equal(simulator.severity(some, {k: v[:64] for k, v in p.items()}), simulator.severity(u, p)[:64])


def test_selection_leaves_out_whom_it_says(u: dict[str, Tensor]) -> None:
    knobs = planted(selection=0.5)
    p = simulator.attributes(u, knobs=knobs)
    chosen = simulator.selected(u, p, knobs)
    hit = (p["finding"] == 1) & (p["group"] == 1)
    assert chosen[~hit].all()
    assert abs(chosen[hit].double().mean() - 0.5) < 4 * 0.5 / (N / 4) ** 0.5


@pytest.mark.parametrize(
    ("bias", "message"),
    [({"grup": {"marker": 1.0}}, "no attribute 'grup' carries a bias; did you mean 'group'"),
     ({"group": {"markr": 1.0}}, "no channel 'markr'; did you mean 'marker'"),
     ({"group": {"marker": 2.0}}, "planted.group.marker: expected opacity"),
     ({"group": {"q": float("nan")}}, "planted.group.q: expected share"),
     ({"group": {"near": True}}, "planted.group.near"),
     ({"race": {"near": 0.1}}, "race has no anatomical effect"),
     ({"finding": {"q": 0.7}}, "finding cannot depend on itself"),
     ({"group": 3}, "planted.group: expected channels")],
)  # fmt: skip
def test_an_impossible_bias_is_refused(bias: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Knobs(planted=bias)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"ap_share": 0.8, "planted": {"sex": {"view": 0.5}}}, "'view' go from 0.8 to 1.3, expected"),
     ({"planted": {"race": {"view": 0.1}}}, "go from -0.1 to 0.1"),
     ({"planted": {"sex": {"selection": 0.7}, "group": {"selection": 0.7}}}, "'selection' go from 0 to 1.4"),
     ({"ap_share": 7.0}, "expected a share of at most 1")],
)  # fmt: skip
def test_what_is_no_share_is_refused(knobs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Knobs(**knobs)
