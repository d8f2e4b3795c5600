"""Encoding and use in networks whose answer is known, and saliency of one that looks at one corner.

film: effusion in the left half (brightness), planted change in the right half
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from causalcxr.bias.encoding import _direction, _erased, _flat, encoding, layers_of
from causalcxr.bias.films import Films
from causalcxr.bias.saliency import smooth_gradients
from causalcxr.graph import load_graph
from causalcxr.predictors.networks import PredictorConfig, build_trunk
from causalcxr.predictors.predictor import NetworkPredictor

N, SIZE = 400, 8


class Halves(nn.Module):
    """Mean brightness of both halves, `(B, 2)`."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([image[..., : SIZE // 2].mean((1, 2, 3)), image[..., SIZE // 2 :].mean((1, 2, 3))], 1)


class Curved(nn.Module):
    """The right half by its distance from 0.5: two groups on both sides of it alike have the same."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.stack([features[:, 0], (features[:, 1] - 0.5).square()], 1)


@pytest.fixture(scope="module")
def films() -> Films:
    generator = np.random.default_rng(0)
    finding = generator.random(N) < 0.5
    plain = generator.integers(90, 110, (N, 1, SIZE, SIZE))
    plain[..., : SIZE // 2] += (40 * finding + 12 * generator.standard_normal(N))[:, None, None, None].astype(int)
    biased = plain.copy()
    biased[..., SIZE // 2 :] += 50
    return Films(
        plain=plain.clip(0, 255).astype(np.uint8),
        biased={"bright": biased.clip(0, 255).astype(np.uint8)},
        finding=finding,
        split=np.full(N, "test"),
        patients=np.arange(N).astype(str),
        ids=np.arange(N),
    )


def network(trunk: nn.Module, weights: list[float]) -> NetworkPredictor:
    """A network with this trunk, whose log-odds are a weighted sum of its features, about 0 in the middle."""
    model = NetworkPredictor([load_graph("chest")["finding"]], PredictorConfig(widths=[8]), 1)
    model.trunk, model.linear = trunk, nn.ModuleList([nn.Linear(2, 2)])
    head: Any = model.linear[0]
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0, 0.0], weights]))
        middle = 0.47 * weights[0] + 0.49 * weights[1]  # of both findings, and of both groups
        head.bias.copy_(torch.tensor([0.0, -middle]))
    return model.eval()


def test_encoding_without_use(films: Films) -> None:
    """The last layer has the group, the head does not look at it: nothing moves, and erasing leaves it so."""
    (found,) = encoding(network(nn.Sequential(Halves()), [40.0, 0.0]), films, "bright", N)
    assert found.group > 0.99 and found.group_floor < 0.65
    assert found.finding > 0.9
    assert found.shift == 0 and found.pair_gap == 0
    assert abs(found.erased_shift) < 0.15  # of log-odds that range over 5
    assert found.erased_accuracy == pytest.approx(found.accuracy, abs=0.03)


def test_use_goes_with_the_direction_that_is_erased(films: Films) -> None:
    (found,) = encoding(network(nn.Sequential(Halves()), [40.0, 20.0]), films, "bright", N)
    assert found.shift == pytest.approx(20 * 50 / 255, rel=0.02)
    assert abs(found.erased_shift) < 0.05 * found.shift
    assert found.erased_accuracy > found.accuracy + 0.05


def test_erasing_before_and_after_a_layer_that_bends_it(films: Films) -> None:
    """Behind the curve the group is in a direction of little variance, which the head looks at all the same."""
    before, after = encoding(network(nn.Sequential(Halves(), Curved()), [40.0, 200.0]), films, "bright", N)
    assert [before.layer, after.layer] == ["0 halves", "1 curved"]
    assert abs(before.erased_shift) < 0.2 * abs(before.shift)
    assert abs(after.erased_shift) < 0.2 * abs(after.shift)


def test_the_floor_is_chance(films: Films) -> None:
    """A bias of nothing is read by nobody."""
    same = Films(films.plain, {"bright": films.plain}, films.finding, films.split, films.patients, films.ids)
    (found,) = encoding(network(nn.Sequential(Halves()), [40.0, 20.0]), same, "bright", N)
    assert abs(found.group - 0.5) < 0.12  # four standard errors of an AUROC of 400 rows
    assert found.shift == 0 and found.pair_gap == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnet", ["relu", "relu", "relu", "relu", "pool"]),
        ("resnet18", ["relu", "maxpool", *["sequential"] * 4]),
    ],
)
def test_layers_are_what_follows_one_another(name: str, expected: list[str]) -> None:
    trunk, _ = build_trunk(PredictorConfig(architecture=name, widths=[8, 16]), 1)
    found = [type(layer).__name__.strip("_").lower() for _, layer in layers_of(trunk)]
    assert found[: len(expected)] == [e.replace("maxpool", "maxpool2d") for e in expected]


def test_smooth_gradients_point_where_a_network_looks(films: Films) -> None:
    """Of a linear network they are its weights, whatever the noise: all in the left half."""
    pytest.importorskip("captum")
    where = smooth_gradients(network(nn.Sequential(Halves()), [40.0, 0.0]), torch.from_numpy(films.plain[:4]))
    assert where.shape == (4, SIZE, SIZE)
    assert (where[..., SIZE // 2 :] == 0).all()
    assert torch.allclose(where[..., : SIZE // 2], torch.tensor(40.0 / (SIZE * SIZE / 2)), rtol=1e-4)


@pytest.mark.parametrize("side", [32, 40, 48, 64])
def test_a_map_of_any_side_is_erased_as_it_was_seen(side: int) -> None:
    """After erasing, the mean difference between the groups that were fitted is 0 in what is seen of the layer."""
    torch.manual_seed(0)
    layer = nn.Identity()
    maps = torch.rand(40, 2, side, side)
    group = np.arange(40) % 2 == 1
    maps[group] += torch.linspace(0, 1, side)
    with _erased(layer, _direction(_flat(maps).double().numpy(), group)):
        left = _flat(layer(maps)).double()
    before = _flat(maps).double()
    difference, was = (x[group].mean(0) - x[~group].mean(0) for x in (left, before))
    assert difference.abs().max() < 1e-4 * was.abs().max()


def test_parts_that_are_not_called_once_are_passed_over(films: Films) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.halves, self.act, self.unused = Halves(), nn.ReLU(inplace=True), nn.Linear(2, 2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.act(self.act(self.halves(image)) - 0.2) + 0.2

    found = encoding(network(Odd(), [40.0, 20.0]), films, "bright", N)
    assert [layer.layer for layer in found] == ["halves halves"]
