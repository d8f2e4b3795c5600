"""Predictors: architectures, prior correction, calibration, augmentation, adapters."""

import math

import pytest
import torch
from torch import nn

from causalcxr.graph import load_graph
from causalcxr.predictors.augment import augment
from causalcxr.predictors.calibration import calibrate, expected_calibration_error, reliability
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws
from causalcxr.support.errors import ConfigError
from tests.models import chest_batch

GRAPH = load_graph("chest")
VARIABLES = [GRAPH[name] for name in GRAPH.attributes]
SMALL = {"convnet": [8, 8], "resnet": [8, 12]}


def network(architecture="convnet", seed=0, channels=1):
    torch.manual_seed(seed)
    config = PredictorConfig(architecture=architecture, widths=SMALL.get(architecture, []))
    return NetworkPredictor(VARIABLES, config, channels)


@pytest.mark.parametrize("architecture", ["convnet", "resnet", "resnet18", "mobilenet_v3_small"])
def test_every_architecture_predicts_and_learns_every_attribute(architecture):
    predictor, batch = network(architecture), chest_batch(4)
    predictor.fit_scaling(chest_batch(200, seed=1))
    image = torch.rand(4, 1, 32, 32)
    losses = predictor.train().losses(predictor.features(image), batch)
    assert list(losses) == list(GRAPH.attributes)
    sum(loss.mean() for loss in losses.values()).backward()
    missing = [name for name, p in predictor.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all("bias" in name for name in missing), missing  # a bias before a normalisation may have none
    prediction = predictor.eval()(image)
    assert prediction["race"].shape == (4, 3)
    assert prediction["age"].shape == (4,)


def test_the_frozen_predictor_sees_each_image_by_itself():
    predictor, image = network().eval(), torch.rand(5, 1, 32, 32)
    together, alone = predictor(image)["race"], predictor(image[2:3])["race"]
    assert (together[2:3] - alone).abs().max() < 1e-5


def test_the_small_architectures_differ():
    names = [{n for n, _ in network(a).named_parameters()} for a in ("convnet", "resnet")]
    assert names[0] != names[1]
    assert network(seed=0).fingerprint() == network(seed=0).fingerprint()
    assert network(seed=0).fingerprint() != network(seed=1).fingerprint()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PredictorConfig(architecture="convnett"), "no predictor architecture 'convnett'; did you mean 'convnet'"),
        (PredictorConfig(widths=[]), "'predictor.widths' is .*; expected a list of at least one entry"),
    ],
)
def test_impossible_architectures_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        NetworkPredictor(VARIABLES, config)


def test_balanced_training_and_the_prior_give_back_the_true_frequencies():
    """On features that say nothing, the balanced optimum is equal logits; adding the prior gives the shares."""
    predictor = network()
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    train = chest_batch(100) | {"race": labels}
    predictor.fit_scaling(train)
    logits = predictor.calibrated("race", torch.zeros(1, 3))
    assert (logits.softmax(dim=1)[0] - torch.tensor([0.90, 0.08, 0.02])).abs().max() < 1e-6
    weight = predictor.label_weight[predictor.index["race"]][labels]
    totals = [weight[labels == k].sum().item() for k in range(3)]
    assert max(totals) - min(totals) < 1e-3  # every label weighs the same
    assert predictor.loc[predictor.index["age"]] == pytest.approx(train["age"].mean().item(), rel=1e-5)


def test_temperature_scaling_finds_the_true_temperature():
    """Labels drawn from softmax(z) and logits 2.5 z: T = 2.5 within 4 standard errors, about 4 %; ECE falls."""
    predictor, generator = network(), torch.Generator().manual_seed(0)
    true = 1.5 * torch.randn(20_000, 3, generator=generator)
    race = torch.multinomial(true.softmax(dim=1), 1, generator=generator)[:, 0]
    age = 60 + 5 * torch.randn(20_000, generator=generator)
    calibrate(predictor, {"race": 2.5 * true, "age": torch.full((20_000,), 60.0)}, {"race": race, "age": age})
    assert abs(predictor.temperature[predictor.index["race"]] / 2.5 - 1) < 0.04
    assert abs(predictor.spread[predictor.index["age"]] / 5 - 1) < 0.02
    before = expected_calibration_error(2.5 * true, race)
    after = expected_calibration_error(predictor.calibrated("race", 2.5 * true), race)
    assert before > 0.1
    assert after < 0.01  # 15 bins of 20,000 rows: noise is about .003


def test_labels_told_apart_without_an_error_keep_a_finite_temperature():
    predictor = network()
    labels = torch.arange(100) % 2
    logits = torch.stack([-labels.float(), labels.float()], dim=1)
    calibrate(predictor, {"sex": logits}, {"sex": labels})
    assert predictor.temperature[predictor.index["sex"]].item() == pytest.approx(0.25, rel=1e-3)


def test_calibration_error_of_a_known_case():
    """Confidence .8 always, right three times of five: |.6 - .8|."""
    logits = torch.tensor([[math.log(4.0), 0.0]]).repeat(5, 1)
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert expected_calibration_error(logits, labels) == pytest.approx(0.2, abs=1e-7)
    found = reliability(logits, labels)
    assert found.rows.sum() == 5
    assert found.accuracy[~found.accuracy.isnan()].tolist() == pytest.approx([0.6])


def test_augmentation_is_one_similarity_a_row():
    image = torch.rand(6, 1, 32, 32)
    one, same, other = (augment(image, 1.0, Draws(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(augment(image, 0.0, Draws(0)), image)
    ramp = torch.linspace(0, 1, 32).expand(4, 1, 32, 32)
    moved = augment(ramp, 1.0, Draws(0))
    slopes = moved[:, 0, 16, 10:22].diff(dim=1) * 31  # a similarity keeps a ramp a ramp
    assert (slopes - slopes.mean(dim=1, keepdim=True)).abs().max() < 1e-3
    assert (slopes.mean(dim=1) - 1).abs().max() < 0.08  # scale e^(+-.06) times the cosine of 6 degrees


def test_two_processes_augment_as_one_would():
    image = torch.rand(4, 1, 16, 16)
    whole = augment(image, 1.0, Draws(3))
    halves = [augment(image[2 * r : 2 * r + 2], 1.0, Draws(3, rank=r, world=2)) for r in range(2)]
    assert torch.equal(whole, torch.cat(halves))


def test_a_module_that_is_no_tensor_function_is_named():
    from causalcxr.predictors.adapters import AdaptedPredictor, Output

    adapted = AdaptedPredictor(VARIABLES, nn.Identity(), {"sex": Output({"male": 0})})
    with pytest.raises(ConfigError, match=r"returned \(2, 1, 8, 8\); expected a tensor \(images, outputs\)"):
        adapted(torch.rand(2, 1, 8, 8))
