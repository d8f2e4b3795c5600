"""Composition and reversibility against models whose answers are known by hand."""

import pytest
import torch

from causalcxr.graph import load_graph
from causalcxr.mechanisms.hvae import HVAENoise
from causalcxr.mechanisms.image import ImageMechanism
from causalcxr.metrics.composition import composition, grey_levels, reversibility
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from tests.models import SIZE, TINY

SCALE = 0.01


class HalfMechanism(ImageMechanism):
    """Its latents carry half of the image, so without pixel noise every cycle halves the image."""

    pixel_noise = ("kept", "off", "redrawn")

    def forward(self, noise, parents):
        return noise.latents[0] + SCALE * noise.pixel

    def abduct(self, value, parents, draws=None):
        return HVAENoise((value / 2,), value / 2 / SCALE)


@pytest.fixture
def half():
    graph = load_graph("chest")
    return HalfMechanism(graph["image"], graph.parents("image"), size=4)


@pytest.fixture(scope="module")
def scm():
    torch.manual_seed(0)
    return StructuralCausalModel(load_graph("chest"), TINY, SIZE).eval().requires_grad_(False)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "sex": torch.tensor([0, 1, 0, 1]),
        "race": torch.tensor([0, 1, 2, 0]),
        "age": torch.tensor([30.0, 50.0, 70.0, 90.0]),
        "finding": torch.tensor([0, 0, 1, 1]),
        "image": torch.rand(4, 1, 16, 16, generator=generator),
    }


def test_difference_is_in_grey_levels():
    white, black = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert grey_levels(white, black).tolist() == [255, 255]
    assert grey_levels(white, white).tolist() == [0, 0]


def test_a_model_that_keeps_half_loses_what_it_should(half):
    image = torch.full((3, 1, 8, 8), 0.8)
    found = composition(half, image, {}, half.abduct(image, {}), 3, Draws(0))
    zero = torch.zeros(3)
    torch.testing.assert_close(found["kept", 1], zero, atol=1e-4, rtol=0)  # float32 at 255
    torch.testing.assert_close(found["kept", 3], zero, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["off", 1], torch.full((3,), 255 * 0.8 / 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(found["off", 3], torch.full((3,), 255 * 0.8 * 7 / 8), atol=1e-3, rtol=0)
    # Redrawn noise is symmetric about the mean and never reaches the image: the same L1, but for sampling error
    # 255 * .01 / sqrt(64) = .3; five of these.
    torch.testing.assert_close(found["redrawn", 1], torch.full((3,), 255 * 0.8 / 2), atol=1.6, rtol=0)
    assert not torch.equal(found["redrawn", 1], found["off", 1])
    assert set(found) == {(mode, cycle) for mode in ("kept", "off", "redrawn") for cycle in (1, 3)}


def test_keeping_the_pixel_noise_gives_the_image_back(scm, batch):
    """Float32: 255 times a few units in the last place, divided by a scale that may be small."""
    abduction = scm.abduct(batch, seed=0)
    image, mechanism = abduction.factual["image"], scm.mechanism("image")
    found = composition(mechanism, image, abduction.factual, abduction.noise["image"], 2, Draws(0))
    assert found["kept", 1].max() < 1e-3
    assert found["kept", 2].max() < 1e-3
    assert found["off", 1].min() > 1
    assert found["redrawn", 1].min() > 1


def test_undoing_nothing_changes_nothing(scm, batch):
    factual = scm.abduct(batch, seed=0).factual
    assert reversibility(scm, factual, factual, seed=1).max() < 1e-3  # float32, as above


def test_an_image_that_was_changed_does_not_come_back(scm, batch):
    factual = scm.abduct(batch, seed=0).factual
    brighter = {**factual, "image": (factual["image"] + 0.1).clamp(max=1)}
    assert reversibility(scm, factual, brighter, seed=1).min() > 5
