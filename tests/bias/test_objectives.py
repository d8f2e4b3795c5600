"""Each loss reaches its own weights; weights of rows make finding and group independent."""

import math

import pytest
import torch

from causalcxr.bias.films import GROUP, IMAGE, WEIGHT
from causalcxr.bias.objectives import FindingObjective, UnlearningObjective, reweighing
from causalcxr.graph import load_graph
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws, seeded


def predictor() -> NetworkPredictor:
    with seeded(0):
        return NetworkPredictor([load_graph("chest")["finding"]], PredictorConfig(widths=[8], augment=0.0), 1)


def batch(weight: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (16,), generator=generator)
    image = torch.rand(16, 1, 32, 32, generator=generator)
    return {IMAGE: image, "finding": labels, GROUP: 1 - labels, WEIGHT: torch.full((16,), weight)}


def test_a_row_counts_by_its_weight() -> None:
    objective = FindingObjective(predictor())
    one, three = (objective(batch(weight), Draws(0))["finding"] for weight in (1.0, 3.0))
    assert torch.allclose(three, 3 * one, rtol=1e-6)


def gradients(name: str) -> dict[str, bool]:
    """Which weights one of the losses reaches."""
    objective = UnlearningObjective(predictor(), 0.5)
    objective(batch(), Draws(0))[name].mean().backward()
    return {key: p.grad is not None and bool(p.grad.abs().sum() > 0) for key, p in objective.named_parameters()}


@pytest.mark.parametrize(
    ("loss", "reaches"), [("finding", ("predictor.",)), ("group", ("head.",)), ("confusion", ("predictor.trunk",))]
)
def test_each_loss_of_unlearning_reaches_its_own_weights(loss: str, reaches: tuple[str, ...]) -> None:
    reached = gradients(loss)
    for name, touched in reached.items():
        biased_conv = name.endswith("bias") and "trunk" in name  # a norm behind it takes a constant out
        assert touched == name.startswith(reaches) or biased_conv


def test_confusion_is_least_for_a_head_that_knows_nothing() -> None:
    """log 2 times its weight, where the head gives both groups alike."""
    objective = UnlearningObjective(predictor(), 0.5)
    with torch.no_grad():
        objective.head.weight.zero_()
        objective.head.bias.zero_()
    found = objective(batch(), Draws(0))["confusion"]
    assert torch.allclose(found, torch.full_like(found, 0.5 * math.log(2)))
    with torch.no_grad():
        objective.head.bias.copy_(torch.tensor([2.0, -1.0]))
    assert (objective(batch(), Draws(0))["confusion"] > found + 0.1).all()


@pytest.mark.parametrize("prevalence", [0.5, 0.1])
def test_reweighing_makes_finding_and_group_independent(prevalence: float) -> None:
    """In the weighted table every cell is the product of its margins, whatever the prevalence; margins stay."""
    generator = torch.Generator().manual_seed(1)
    finding = torch.rand(5000, generator=generator) < prevalence
    group = torch.rand(5000, generator=generator) < torch.where(finding, 0.8, 0.2)
    weight = reweighing(finding, group)
    assert weight.sum() == pytest.approx(5000)
    for y in (False, True):
        for g in (False, True):
            cell = weight[(finding == y) & (group == g)].sum() / 5000
            margins = [(finding == y).double().mean(), (group == g).double().mean()]
            assert cell == pytest.approx(float(margins[0] * margins[1]), abs=1e-12)


def test_a_networks_own_randomness_follows_from_the_draws() -> None:
    """Dropout is the same at the same step, whatever was drawn before, and leaves the global generator alone."""
    objective = FindingObjective(predictor())
    objective.predictor.trunk.append(torch.nn.Dropout(0.5))
    torch.manual_seed(1)
    one = objective(batch(), Draws(3))["finding"]
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(one, objective(batch(), Draws(3))["finding"])
    assert not torch.equal(one, objective(batch(), Draws(4))["finding"])
