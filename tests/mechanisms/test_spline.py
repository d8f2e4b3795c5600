"""The spline at the limits of its library and of float32, and with a heap of values at the end of the range."""

import copy

import numpy as np
import pytest
import torch

from causalcxr.graph import Variable
from causalcxr.mechanisms.spline import SplineMechanism
from causalcxr.randomness import Draws

AGE = Variable("age", "continuous", range=(0.0, 90.0), unit="years")
N = 2_000


def _with_knots(deviation: float) -> SplineMechanism:
    torch.manual_seed(0)
    mechanism = SplineMechanism(AGE, ())
    with torch.no_grad():
        knots = mechanism.conditioner.bias[2:]
        knots.add_(deviation * torch.randn_like(knots))
    return mechanism


def _top_coded() -> torch.Tensor:
    """Ages of which 5 % are at the upper end of the range, as registers top-code them."""
    ages = torch.from_numpy(np.random.default_rng(0).normal(60, 12, N).clip(1, 85)).float()
    ages[: N // 20] = 90.0
    return ages


@pytest.mark.parametrize("deviation", [1.0, 5.0, 10.0])
def test_the_inverse_keeps_float32_at_extreme_knots(deviation):
    mechanism = _with_knots(deviation)
    noise = mechanism.sample_noise(N, Draws(0))
    value = mechanism(noise, {})
    again = mechanism(mechanism.abduct(value, {}), {})
    torch.testing.assert_close(again, value, atol=90 * 1e-6, rtol=0)  # float32 of a range of 90
    double = copy.deepcopy(mechanism).double()
    for name in ("abduct", "log_prob"):
        found, exact = (getattr(m, name)(value, {}) for m in (mechanism, double))
        inner = (value > 0.01) & (value < 89.99)  # nearer the ends float32 tells positions apart less finely
        assert found.dtype == torch.float32 and found.isfinite().all()
        torch.testing.assert_close(found[inner].double(), exact[inner], atol=1e-4, rtol=1e-4)


def test_calibration_sees_the_ends_of_the_range_as_the_model_does():
    mechanism, ages = SplineMechanism(AGE, ()), _top_coded()
    mechanism.calibrate({"age": ages})
    noise = mechanism.abduct(ages, {})
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert noise.std().item() == pytest.approx(1, abs=1e-3)


def test_top_coded_ages_are_fitted():
    mechanism, ages = SplineMechanism(AGE, ()), _top_coded()
    mechanism.calibrate({"age": ages})
    optimizer = torch.optim.Adam(mechanism.parameters(), lr=0.02)
    for _ in range(200):
        loss = -mechanism.log_prob(ages, {}).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = mechanism(mechanism.sample_noise(20_000, Draws(1)), {})
    assert (drawn > 89.9).float().mean().item() == pytest.approx(0.05, abs=0.01)
    deciles = torch.arange(0.1, 0.95, 0.1)
    gaps = drawn.quantile(deciles) - ages.quantile(deciles)
    assert gaps.abs().max() < 2  # years; a decile of 2,000 ages has a standard error of 0.4 to 0.6
