"""The template: a known displacement is found, brightness is not taken for one, detail is carried along."""

import dataclasses

import pytest
import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.hvae import HVAE
from causalcxr.mechanisms.template import Template
from causalcxr.randomness import Draws
from tests.models import TINY_IMAGE

SHIFT = 1.0  # pixel to the right and down, for one unit of the first feature
N = 1500


def smooth(n: int, size: int, channels: int = 1, seed: int = 0) -> Tensor:
    """Coarse patterns, `(n, C, size, size)` in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, size // 8, size // 8, generator=g)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def people(size: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Features `(N, 3)` and images: the first moves a common pattern, the second brightens it, the third idles."""
    g = torch.Generator().manual_seed(1)
    features = torch.stack(
        [torch.randn(N, generator=g), torch.randint(2, (N,), generator=g), torch.randn(N, generator=g)], dim=1
    )
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    at = SHIFT * features[:, 0].view(-1, 1, 1)
    wave = torch.stack(
        [torch.sin((rows - at) / 2 + c) + torch.cos((columns - at) / 2.5) for c in range(channels)], 1
    )
    image = 0.5 + 0.1 * wave + 0.05 * features[:, 1].view(-1, 1, 1, 1)
    own = 0.1 * (smooth(N, size, channels, seed=2) - 0.5) + 0.02 * torch.randn(image.shape, generator=g)
    return features, (image + own).clamp(0, 1)


def fitted(size: int, channels: int = 1) -> Template:
    features, images = people(size, channels)
    template = Template(3, channels, size)
    nothing = torch.zeros(N, 0)
    template.fit(lambda: zip(*(tensor.split(400) for tensor in (features, nothing, images)), strict=True))
    return template


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (128, 1)])
def test_what_moves_is_found_and_what_brightens_is_not_taken_for_it(size, channels):
    field = fitted(size, channels).field * size  # pixels
    inner = field[:, :, 2:-2, 2:-2]
    # The mean image is known to .001, its slope is about .02 a pixel; the moving pattern's curvature biases a
    # linear fit by less than a tenth. Waves are ambiguous where they turn, so the mean over the grid counts.
    assert inner[0].mean(dim=(1, 2)).sub(SHIFT).abs().max() < 0.2 * SHIFT
    assert inner[1:].abs().mean() < 0.1 * SHIFT


def test_constant_or_repeated_features_move_nothing_more():
    features, images = people(32)
    once, twice = Template(3, 1, 32), Template(5, 1, 32)
    once.fit(lambda: [(features, torch.zeros(N, 0), images)])
    repeated = torch.cat([features[:, :1] / 2, features[:, :1] / 2, features[:, 1:], torch.ones(N, 1)], dim=1)
    twice.fit(lambda: [(repeated, torch.zeros(N, 0), images)])
    assert twice.field[4].abs().max() < 1e-6
    change = torch.tensor([[1.0, 0.0, 0.0]])
    image = smooth(1, 32)
    again = twice.carry(image, torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]]))
    # Half a change of each twin; either has half the slope and so four times the prior's pull.
    torch.testing.assert_close(again, once.carry(image, change), atol=0.02, rtol=0)


def test_other_causes_are_held_fixed():
    """A cause that goes along with the first feature and brightens one side must not be taken for its doing."""
    features, images = people(32)
    g = torch.Generator().manual_seed(3)
    other = features[:, :1] + 0.5 * torch.randn(N, 1, generator=g)
    ramp = torch.linspace(0, 0.1, 32).expand(1, 1, 32, 32)
    disturbed = images + other.view(-1, 1, 1, 1) * ramp
    fields = {}
    for name, held in {"held": other, "left out": torch.zeros(N, 0)}.items():
        template = Template(3, 1, 32)
        template.fit(lambda held=held: [(features, held, disturbed)])
        fields[name] = template.field[0] * 32
    plain = fitted(32).field[0] * 32
    assert (fields["held"] - plain).abs().mean() < 0.05 * SHIFT
    assert (fields["left out"] - plain).abs().mean() > 2 * (fields["held"] - plain).abs().mean()


def some(features: int = 2) -> Template:
    template = Template(features, 1, 32)
    g = torch.Generator().manual_seed(4)
    coarse = torch.randn(features, 2, 3, 3, generator=g) * 0.01
    template.field.copy_(torch.nn.functional.interpolate(coarse, size=8, mode="bilinear"))
    template.reference.copy_(torch.tensor([0.5] * features))
    return template


def test_a_whole_pixel_moves_the_image_by_a_pixel_to_the_right_and_up():
    template, image = Template(1, 1, 32), torch.rand(2, 1, 32, 32)
    template.field[:, 0], template.field[:, 1] = 1 / 32, -1 / 32
    moved = template.carry(image, torch.tensor([[1.0], [2.0]]))
    torch.testing.assert_close(moved[0, :, :-1, 1:], image[0, :, 1:, :-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, :-2, 2:], image[1, :, 2:, :-2], atol=1e-4, rtol=0)


def test_detail_that_does_not_move_stays_bit_for_bit():
    image, change = torch.randn(3, 1, 32, 32), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    moved = some().carry(image, change)
    assert torch.equal(moved[[0, 2]], image[[0, 2]]) and not torch.equal(moved[1], image[1])


def test_taking_back_undoes_placing():
    image, features = smooth(6, 32), torch.randn(6, 2, generator=torch.Generator().manual_seed(5))
    template = some()
    placed = template.warp(image, features)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))  # what is moved in from outside is not known
    back = template.unwarp(placed, features)
    # Interpolating twice takes away a fifth of what moving by half a pixel does to patterns this coarse.
    assert (back - image)[inner].abs().mean() < 0.3 * (placed - image)[inner].abs().mean()


def test_an_image_moves_with_a_parent_and_comes_back():
    """The mechanism's mean and its pixel noise move alike, so that an image as a whole does."""
    torch.manual_seed(0)
    age = Variable("age", "continuous", range=(20.0, 90.0))
    hvae = HVAE(
        Variable("image", "image", ("age",), channels=1),
        (age,),
        dataclasses.replace(TINY_IMAGE, template=True),
    )
    with torch.no_grad():  # nothing but the template depends on the parent
        for layer in (hvae.embed[0], hvae.embed[2]):
            layer.weight.zero_()
    assert hvae.template is not None
    hvae.template.field[:, 1] = 1 / 16
    step = float(hvae.parent_encoder.scale[0])
    image, young = torch.rand(4, 1, 16, 16), {"age": torch.full((4,), 55.0)}
    older = {"age": torch.full((4,), 55.0 + step)}
    with torch.no_grad():
        noise = hvae.abduct(image, young, Draws(0))
        moved, same = hvae(noise, older), hvae(noise, young)
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, 1:], image[:, :, :-1], atol=1e-3, rtol=0)
