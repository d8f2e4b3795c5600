"""The template: a known displacement is found, brightness is not taken for one, detail is carried along."""

import pytest
import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import ParentEncoder
from causalcxr.mechanisms.flow import Flow
from causalcxr.mechanisms.hvae import HVAE
from causalcxr.mechanisms.template import Template, TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.support.errors import ConfigError
from tests.models import SIZE, TINY_FLOW, TINY_IMAGE

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


def new(features: int, size: int = 32, channels: int = 1, others: int = 0) -> Template:
    """A template of the first features; the `others` after them are of parents that it leaves alone."""
    parents = [Variable(f"a{i}", "continuous", range=(-1.0, 1.0)) for i in range(features + others)]
    config = TemplateConfig([p.name for p in parents[:features]])
    return Template(config, ParentEncoder(parents), channels, size)


def fitted(size: int, channels: int = 1) -> Template:
    features, images = people(size, channels)
    template = new(3, size, channels)
    template.fit(lambda: zip(features.split(400), images.split(400), strict=True))
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
    once, twice = new(3), new(5)
    once.fit(lambda: [(features, images)])
    repeated = torch.cat([features[:, :1] / 2, features[:, :1] / 2, features[:, 1:], torch.ones(N, 1)], dim=1)
    twice.fit(lambda: [(repeated, images)])
    assert twice.field[4].abs().max() < 1e-6
    change = torch.tensor([[1.0, 0.0, 0.0]])
    image = smooth(1, 32)
    again = twice.carry(image, torch.zeros(1, 5), torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]]))
    # Half a change of each twin; either has half the slope and so four times the prior's pull.
    torch.testing.assert_close(again, once.carry(image, torch.zeros(1, 3), change), atol=0.02, rtol=0)


def test_other_causes_are_held_fixed():
    """A cause that goes along with the first feature and brightens one side must not be taken for its doing."""
    features, images = people(32)
    g = torch.Generator().manual_seed(3)
    other = features[:, :1] + 0.5 * torch.randn(N, 1, generator=g)
    ramp = torch.linspace(0, 0.1, 32).expand(1, 1, 32, 32)
    disturbed = images + other.view(-1, 1, 1, 1) * ramp
    fields = {}
    for name, known in {"held": torch.cat([features, other], dim=1), "left out": features}.items():
        template = new(3, others=known.shape[1] - 3)
        template.fit(lambda known=known: [(known, disturbed)])
        fields[name] = template.field[0] * 32
    plain = fitted(32).field[0] * 32
    assert (fields["held"] - plain).abs().mean() < 0.05 * SHIFT
    assert (fields["left out"] - plain).abs().mean() > 2 * (fields["held"] - plain).abs().mean()


def some(features: int = 2) -> Template:
    template = new(features)
    g = torch.Generator().manual_seed(4)
    coarse = torch.randn(features, 2, 3, 3, generator=g) * 0.01
    template.field.copy_(torch.nn.functional.interpolate(coarse, size=8, mode="bilinear"))
    template.reference.copy_(torch.tensor([0.5] * features))
    return template


def test_a_whole_pixel_moves_the_image_by_a_pixel_to_the_right_and_up():
    template, image = new(1), torch.rand(2, 1, 32, 32)
    template.field[:, 0], template.field[:, 1] = 1 / 32, -1 / 32
    moved = template.warp(image, torch.tensor([[1.0], [2.0]]))
    torch.testing.assert_close(moved[0, :, :-1, 1:], image[0, :, 1:, :-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, :-2, 2:], image[1, :, 2:, :-2], atol=1e-4, rtol=0)


def test_detail_that_does_not_move_stays_bit_for_bit():
    image, change = torch.randn(3, 1, 32, 32), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    moved = some().carry(image, torch.ones(3, 2), 1 + change)
    assert torch.equal(moved[[0, 2]], image[[0, 2]]) and not torch.equal(moved[1], image[1])


def test_taking_back_undoes_placing():
    image, features = smooth(6, 32), torch.randn(6, 2, generator=torch.Generator().manual_seed(5))
    template = some()
    placed = template.warp(image, features)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))  # what is moved in from outside is not known
    back = template.unwarp(placed, features)
    # Interpolating twice takes away a fifth of what moving by half a pixel does to patterns this coarse.
    assert (back - image)[inner].abs().mean() < 0.3 * (placed - image)[inner].abs().mean()


def test_of_a_residual_the_detail_moves_and_the_noise_stays():
    """A bright line in faint noise: the line goes down by two pixels, the noise elsewhere is what it was."""
    template, noise = new(1), 0.01 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(6))
    template.field[:, 1] = 2 / 32
    line = torch.zeros(1, 1, 32, 32)
    line[..., 10, :] = 0.5
    moved = template.carry(line + noise, torch.zeros(1, 1), torch.ones(1, 1))
    torch.testing.assert_close(moved[..., 12, :].mean(), torch.tensor(0.5), atol=0.02, rtol=0)
    assert moved[..., 10, :].mean().abs() < 0.02
    far = (slice(None), slice(None), slice(20, 30))
    shifted = torch.roll(noise, 2, dims=2)
    assert (moved - noise)[far].std() < 0.5 * (shifted - noise)[far].std()


def test_without_parents_nothing_is_predicted_and_nothing_moves():
    image, before, after = torch.rand(2, 1, 32, 32), torch.zeros(2, 2), torch.ones(2, 2)
    template = new(0, others=2)
    template.fit(lambda: [])
    assert torch.equal(template.warp(image, after), image) and torch.equal(
        template.carry(image, before, after), image
    )
    assert (template(after) == 0.5).all() and template(after).shape[1:] == (1, 32, 32)


def test_an_image_moves_with_a_parent_and_comes_back():
    """The mechanism's mean moves by what the template says, and with it what the image has of its own."""
    torch.manual_seed(0)
    age = Variable("age", "continuous", range=(20.0, 90.0))
    hvae = HVAE(
        Variable("image", "image", ("age",), channels=1), (age,), TINY_IMAGE, SIZE, TemplateConfig(["age"])
    )
    with torch.no_grad():  # nothing but the template depends on the parent
        for layer in (hvae.embed[0], hvae.embed[2]):
            layer.weight.zero_()
        hvae.decoder.head.weight.zero_()  # its mean is the template
    hvae.template.field[:, 1] = 1 / 16
    step = float(hvae.parent_encoder.scale[0])
    image, young = smooth(4, SIZE), {"age": torch.full((4,), 55.0)}
    older = {"age": torch.full((4,), 55.0 + step)}
    with torch.no_grad():
        noise = hvae.abduct(image, young, Draws(0))
        moved, same = hvae(noise, older), hvae(noise, young)
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    down = (image[:, :, :-1] - image[:, :, 1:]).abs().mean()
    assert (moved[:, :, 1:] - image[:, :, :-1]).abs().mean() < 0.5 * down


LEVEL = TemplateConfig(level="age")
AGE = Variable("age", "continuous", range=(20.0, 90.0))


@pytest.mark.parametrize("mechanism", [HVAE, Flow])
def test_an_image_is_proportional_to_the_parent_that_is_its_level(mechanism):
    """Parameters at random: the counterfactual is the image times the ratio of the parent's values."""
    torch.manual_seed(0)
    config = {HVAE: TINY_IMAGE, Flow: TINY_FLOW}[mechanism]
    built = mechanism(Variable("image", "image", ("age",), channels=1), (AGE,), config, SIZE, LEVEL)
    built.calibrate({"age": torch.tensor([30.0, 50.0, 70.0])})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        image, young, older = 0.5 * smooth(4, SIZE), torch.full((4,), 30.0), torch.full((4,), 45.0)
        noise = built.abduct(image, {"age": young}, Draws(0))
        torch.testing.assert_close(built(noise, {"age": young}), image, atol=1e-5, rtol=0)
        torch.testing.assert_close(built(noise, {"age": older}), 1.5 * image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mechanism", [HVAE, Flow])
def test_no_other_parent_changes_the_level(mechanism):
    """Parameters at random: do(sex) changes the image, and not the median of the upper half of its range."""
    torch.manual_seed(0)
    config = {HVAE: TINY_IMAGE, Flow: TINY_FLOW}[mechanism]
    sex = Variable("sex", "binary", labels=("female", "male"))
    built = mechanism(Variable("image", "image", ("age", "sex"), channels=1), (AGE, sex), config, SIZE, LEVEL)
    built.calibrate({"age": torch.tensor([30.0, 50.0, 70.0])})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_((0.05 if mechanism is HVAE else 0.2) * torch.randn_like(parameter))
        image, women = 0.5 * smooth(5, SIZE), {"age": torch.full((5,), 40.0), "sex": torch.zeros(5).long()}
        men = built(built.abduct(image, women, Draws(0)), women | {"sex": torch.ones(5).long()})

    def level(of: torch.Tensor) -> list[float]:
        return [float(one[one >= (one.min() + one.max()) / 2].median()) for one in of]

    assert (men - image).abs().mean() > 0.003
    assert level(men) == pytest.approx(level(image), rel=1e-4)


def test_a_parent_that_cannot_be_a_level_is_refused():
    sex = Variable("sex", "binary", labels=("female", "male"))
    image, below = Variable("image", "image", ("sex",)), Variable("age", "continuous", range=(-1.0, 1.0))
    for parent in (sex, below):
        template = TemplateConfig(level=parent.name)
        with pytest.raises(
            ConfigError, match=r"model.template.level is '.*', no continuous parent of the image above 0"
        ):
            Flow(image, [parent], TINY_FLOW, SIZE, template)
