"""Principal components against data whose covariance is known."""

import pytest
import torch

from causalcxr.mechanisms.principal import PrincipalComponents

SHAPE, SPREADS = torch.Size((1, 8, 8)), torch.tensor([3.0, 2.0, 1.0])
REST = 0.05  # standard deviation of white noise beside the three directions


@pytest.fixture(scope="module")
def made():
    """Images, and the directions `(3, 64)` that they vary in."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(64, 3, generator=generator)).Q.T
    coordinates = torch.randn(4000, 3, generator=generator) * SPREADS
    flat = 0.5 + coordinates @ directions + REST * torch.randn(4000, 64, generator=generator)
    return flat.view(-1, *SHAPE), directions


def fitted(images, whiten=0.0, k=3):
    components = PrincipalComponents(k, SHAPE, whiten)
    components.fit(lambda: images.split(500))
    return components


def test_the_directions_of_most_variance_are_found(made):
    images, directions = made
    found = fitted(images).directions
    cosines = (found * directions).sum(dim=1).abs()  # a sign is arbitrary
    assert cosines.min() > 0.999
    torch.testing.assert_close(found @ found.T, torch.eye(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_spreads_are_evened_out_as_far_as_asked(made, whiten):
    images, _ = made
    found = fitted(images, whiten).encode(images).std(dim=0)
    expected = (SPREADS / SPREADS.mean()) ** (1 - whiten)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)  # 4,000 rows: 1.1 % a standard deviation


def test_what_is_lost_is_the_rest(made):
    images, _ = made
    components = fitted(images)
    again = components.decode(components.encode(images))
    lost = (images - again).std(dim=0)
    torch.testing.assert_close(components.lost, lost, rtol=0.01, atol=1e-4)
    assert lost.square().mean().sqrt() == pytest.approx(REST * (61 / 64) ** 0.5, rel=0.02)


def test_all_components_lose_nothing(made):
    images = made[0][:200]
    components = fitted(images, k=64)
    torch.testing.assert_close(components.decode(components.encode(images)), images, atol=1e-4, rtol=0)
