"""Paths and solvers against differential equations with known solutions, and against DDIM as it is published."""

import math

import pytest
import torch

from causalcxr.mechanisms.flow_path import PATHS, integrate, straight_time, times_between


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("path", PATHS)
def test_twice_the_steps_leave_the_share_of_the_error_that_the_order_says(path, solver, order):
    """`dx/dt = 2 x` from 0 to 1 gives `e^2 x`."""
    x, errors = torch.linspace(-1, 1, 5, dtype=torch.float64), []
    for steps in (40, 80, 160):
        found = integrate(lambda x, t: 2 * x, x, times_between(0, 1, steps, path), solver)
        errors.append((found - math.exp(2) * x).abs().max())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize("path", PATHS)
def test_it_runs_backwards_and_knows_the_time(path):
    x = torch.ones(3, dtype=torch.float64)
    back = integrate(lambda x, t: t, x, times_between(1, 0.2, 7, path))  # Heun's method is exact on a line
    torch.testing.assert_close(back, x - (1 - 0.2**2) / 2)
    assert integrate(lambda x, t: 1 / t, x, times_between(0.3, 0.3, 4, path)) is x


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 0.1), (0.1, 1)])
def test_times_begin_and_end_where_they_should_and_never_turn(path, start, end):
    times = times_between(start, end, 6, path)
    assert times[0] == start and times[-1] == end and len(times) == 7
    assert sorted(times, reverse=start > end) == times and len(set(times)) == 7


def test_the_diffusion_path_is_the_straight_one_scaled():
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    signal, noise = torch.sin(s * math.pi / 2), torch.cos(s * math.pi / 2)
    t = straight_time(s, "diffusion")
    torch.testing.assert_close(t, signal / (signal + noise))
    torch.testing.assert_close((signal**2 + noise**2), torch.ones_like(s))
    torch.testing.assert_close(straight_time(s, "straight"), s)


@pytest.mark.parametrize(("first", "last"), [(1.0, 0.1), (0.1, 1.0)], ids=["inversion", "generation"])
def test_eulers_method_on_the_diffusion_path_is_ddim(first, last):
    """Song, Meng and Ermon 2021, equation 12 with eta = 0."""
    spread = 0.6  # of the images, which are normal: the noise in a mixture is then known

    def predict_noise(mixture, signal, noise):
        return noise / (signal**2 * spread**2 + noise**2) * mixture

    def velocity(x, t):
        signal, noise = t / (t**2 + (1 - t) ** 2).sqrt(), (1 - t) / (t**2 + (1 - t) ** 2).sqrt()
        e = predict_noise(x * (signal + noise), signal, noise)
        image = (x - (1 - t) * e) / t
        return image - e

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    times = times_between(first, last, 10, "diffusion")
    found = integrate(velocity, x, times, "euler")
    signals = [t / math.hypot(t, 1 - t) for t in times]
    noises = [(1 - t) / math.hypot(t, 1 - t) for t in times]
    mixture = x * (signals[0] + noises[0])
    for i in range(10):
        e = predict_noise(mixture, signals[i], noises[i])
        image = (mixture - noises[i] * e) / signals[i]
        mixture = signals[i + 1] * image + noises[i + 1] * e
    torch.testing.assert_close(found, mixture / (signals[-1] + noises[-1]), rtol=1e-12, atol=1e-12)
