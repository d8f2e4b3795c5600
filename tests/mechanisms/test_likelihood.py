"""The discretised Gaussian against what is known in closed form."""

import math

import pytest
import torch

from causalcxr.mechanisms.likelihood import LEVELS, bits_per_dimension, discretised_gaussian_log_prob, pixel_noise
from causalcxr.randomness import Draws


@pytest.mark.parametrize("loc", [-0.4, 0.0, 0.001, 0.3, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("scale", [0.0005, 0.004, 0.05, 0.6, 5.0])
def test_masses_of_the_256_levels_sum_to_one(loc, scale):
    levels = torch.arange(LEVELS) / (LEVELS - 1)
    mass = discretised_gaussian_log_prob(levels, torch.tensor(loc), torch.tensor(scale)).exp()
    # 256 float32 masses, each a difference of two log-probabilities good to about 1e-6.
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)


def test_mass_of_a_level_equals_a_double_precision_difference_of_distribution_functions():
    image, loc, scale = (
        torch.tensor([0.4, 0.0, 1.0]),
        torch.tensor([0.45, 0.1, 0.7]),
        torch.tensor([0.02, 0.3, 0.2]),
    )
    below = [(0.4 - 0.5 / 255 - 0.45) / 0.02, -math.inf, (1 - 0.5 / 255 - 0.7) / 0.2]
    above = [(0.4 + 0.5 / 255 - 0.45) / 0.02, (0.5 / 255 - 0.1) / 0.3, math.inf]
    expected = [
        math.log(0.5 * (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))))
        for a, b in zip(below, above, strict=True)
    ]
    got = discretised_gaussian_log_prob(image, loc, scale)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-5)  # float32 differences


def test_far_tails_stay_finite_with_a_gradient_towards_the_image():
    image = torch.tensor([0.0, 0.2, 0.8, 1.0])
    loc = torch.tensor([1.5, 0.9, 0.1, -0.5], requires_grad=True)
    log_prob = discretised_gaussian_log_prob(image, loc, torch.full((4,), 0.0005))
    (gradient,) = torch.autograd.grad(log_prob.sum(), loc)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient.sign() == (image - loc).sign()).all()


def test_gradient_in_double_precision():
    image = torch.tensor([0.0, 100 / 255, 128 / 255, 1.0], dtype=torch.float64)
    loc = torch.tensor([0.02, 0.41, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.1, 0.05, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: discretised_gaussian_log_prob(image, m, s), (loc, scale))


def test_computed_in_float32_under_autocast_and_for_half_inputs():
    image, loc, scale = torch.rand(64).mul(255).round() / 255, torch.rand(64).bfloat16(), torch.full((64,), 0.1)
    expected = discretised_gaussian_log_prob(image, loc.float(), scale)
    with torch.autocast("cpu", torch.bfloat16):
        got = discretised_gaussian_log_prob(image, loc, scale.bfloat16().float().clamp(0.1, 0.1))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)  # the same computation


def test_pixel_noise_gives_the_image_back():
    image = torch.tensor([0.0, 0.0, 0.3, 1.0, 1.0])
    loc, scale = torch.tensor([-0.2, 0.1, 0.5, 1.3, 0.9]), torch.tensor([0.1, 0.1, 0.2, 0.1, 0.1])
    noise = pixel_noise(image, loc, scale, Draws(0))
    torch.testing.assert_close((loc + scale * noise).clamp(0, 1), image, rtol=0, atol=1e-6)
    assert noise[2] == pytest.approx(-1)


@pytest.mark.parametrize("bound", [-200.0, -31.0, -29.0, -5.0, -1.0, 0.0, 2.0, 8.0])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_noise_of_a_saturated_pixel_is_a_normal_draw_beyond_the_bound(bound: float, level: float):
    """Its distribution function given the bound is uniform: Kolmogorov-Smirnov, at the level 0.001."""
    n, scale, sign = 20_000, torch.full((20_000,), 0.01, dtype=torch.float64), 1 - 2 * level
    image = torch.full_like(scale, level)
    noise = pixel_noise(image, image - sign * bound * scale, scale, Draws(1))
    drawn = torch.special.log_ndtr(sign * noise) - torch.special.log_ndtr(torch.tensor(bound).double())
    distance = (drawn.exp().sort().values - (torch.arange(n) + 0.5) / n).abs().max().item()
    assert distance < 1.95 / math.sqrt(n)


def test_noise_of_images_that_the_model_drew_is_standard_normal_again():
    """Abduction undoes sampling, saturated pixels included: the same test, of noise abducted from draws."""
    n, loc, scale = 40_000, torch.linspace(-0.3, 1.3, 40_000).double(), torch.full((40_000,), 0.2).double()
    image = (loc + scale * Draws(2).normal(n, dtype=torch.float64)).clamp(0, 1)
    assert ((image == 0) | (image == 1)).double().mean() > 0.3  # the test is of these
    share = torch.special.ndtr(pixel_noise(image, loc, scale, Draws(3))).sort().values
    assert (share - (torch.arange(n) + 0.5) / n).abs().max().item() < 1.95 / math.sqrt(n)


def test_pixel_noise_stays_finite_with_its_gradient_at_any_bound():
    image = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0]).repeat(100_000)
    loc = torch.tensor([0.9, -0.4, 0.0, -1.0, 2.0, 0.3]).repeat(100_000).requires_grad_()
    noise = pixel_noise(image, loc, torch.full_like(loc, 0.002), Draws(4))
    (gradient,) = torch.autograd.grad(noise.sum(), loc)
    assert noise.isfinite().all()
    assert gradient.isfinite().all()


def test_gradient_of_pixel_noise_in_double_precision():
    image = torch.tensor([0.0, 0.0, 0.3, 1.0, 1.0], dtype=torch.float64)
    loc = torch.tensor([-0.2, 0.1, 0.5, 1.3, 0.2], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.1, 0.1, 0.2, 0.1, 0.02], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: pixel_noise(image, m, s, Draws(5)), (loc, scale))


def test_bits_per_dimension_of_a_uniform_image_is_eight():
    nats = torch.tensor([3 * 4 * 4 * math.log(256)])
    assert bits_per_dimension(nats, (3, 4, 4)).item() == pytest.approx(8)
