"""The flow against what is known in closed form: a differential equation, and Gaussian images."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from causalcxr.graph import Variable
from causalcxr.mechanisms.flow import Flow
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.support.errors import ConfigError, DataError
from tests.models import SIZE, TINY_FLOW

SEX = Variable("sex", "binary", labels=("female", "male"))
IMAGE = Variable("v", "image", ("sex",), channels=1)
SPREAD = 0.6  # of a coordinate given the parents
SHIFT = 1.5  # of its mean under sex = male


class ExactVelocity(nn.Module):
    """`E[x_1 - x_0 | x_t]` where `x_1` is normal with mean 0 or SHIFT by sex, and spread SPREAD."""

    def forward(self, x: Tensor, t: Tensor, features: Tensor, draws=None) -> Tensor:
        mean, t = SHIFT * features[:, 1:2], t[:, None]
        variance = (t * SPREAD) ** 2 + (1 - t) ** 2
        return mean + (t * SPREAD**2 - (1 - t)) / variance * (x - t * mean)


def exact_flow(t_end: float) -> Flow:
    """Of images of one coordinate, brightness; float64."""
    flow = Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, components=1, steps=60, t_end=t_end), SIZE)
    flow.velocity = ExactVelocity()
    flow.space.directions.fill_(1 / 16)
    return flow.double()


@pytest.mark.parametrize("t_end", [0.0, 0.3, 0.7])
def test_the_counterfactual_of_gaussian_images_is_the_known_one(t_end):
    """Abducted to pure noise, all of the shift appears; to a later time, the share that its noise allows."""
    flow, coordinates = exact_flow(t_end), torch.linspace(-1, 1, 9, dtype=torch.float64)
    sex = torch.zeros(9, dtype=torch.int64)
    image = 0.5 + flow.space.decode(coordinates[:, None])
    noise = flow.abduct(image, {"sex": sex})
    made = flow(noise, {"sex": 1 - sex})
    root = math.sqrt((t_end * SPREAD) ** 2 + (1 - t_end) ** 2)
    expected = SHIFT * (1 - SPREAD * t_end / root)
    found = flow.space.encode(made - 0.5).squeeze(1) - coordinates
    torch.testing.assert_close(
        found, torch.full_like(found, expected), atol=2e-3, rtol=0
    )  # 60 steps of the solver


def test_the_noise_of_gaussian_images_is_standard_normal_whatever_the_parents():
    flow, sex = exact_flow(0.0), torch.arange(4000) % 2
    coordinates = SHIFT * sex + SPREAD * Draws(0).normal(4000, dtype=torch.float64)
    image = 0.5 + flow.space.decode(coordinates[:, None])
    latent = flow.infer(image, {"sex": sex}).noise.latent.squeeze(1)
    for group in (latent[sex == 0], latent[sex == 1]):
        assert group.mean().abs() < 0.07 and abs(group.std() - 1) < 0.05  # three standard errors of 2,000


def test_guidance_makes_an_effect_larger_by_its_scale_and_composition_stays_exact():
    """The exact velocity is affine in the mean, so guidance multiplies the mean of male films by its scale."""
    flow = exact_flow(0.3)
    flow.config = dataclasses.replace(flow.config, unconditional=0.1, guidance=1.7)
    sex, coordinates = torch.arange(8) % 2, torch.linspace(-1, 1, 8, dtype=torch.float64)
    image = 0.5 + flow.space.decode(coordinates[:, None])
    noise = flow.abduct(image, {"sex": sex})
    torch.testing.assert_close(flow(noise, {"sex": sex}), image, atol=1e-12, rtol=0)
    found = flow.space.encode(flow(noise, {"sex": 1 - sex}) - 0.5).squeeze(1) - coordinates
    share = 1 - SPREAD * 0.3 / math.hypot(0.3 * SPREAD, 0.7)
    expected = 1.7 * SHIFT * share * (1 - 2 * sex).double()
    torch.testing.assert_close(found, expected, atol=4e-3, rtol=0)  # 60 steps of the solver


def test_hidden_parents_train_the_unconditional_velocity_and_no_other():
    """Almost all rows hidden: the loss asks nothing about the parents. Never while it validates."""
    torch.manual_seed(0)
    flow = Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, unconditional=1 - 1e-9), SIZE)
    with torch.no_grad():
        for parameter in flow.velocity.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    image, sex = films(32)

    def losses() -> list[Tensor]:
        return [flow.training_loss(image, {"sex": value}, Draws(1)) for value in (sex, 1 - sex)]

    assert torch.equal(*losses())
    flow.eval()
    assert not torch.equal(*losses())


@pytest.fixture(scope="module")
def trained() -> Flow:
    """On images that are brighter by 0.2 on the left of male patients."""
    torch.manual_seed(0)
    image, sex = films(512)
    flow = Flow(
        IMAGE,
        [SEX],
        dataclasses.replace(TINY_FLOW, components=4, width=64, embedding=32, t_end=0.1, steps=8),
        SIZE,
    )
    flow.prepare(lambda: [(image, {"sex": sex})])
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(800):
        loss = flow.training_loss(image, {"sex": sex}, Draws(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.requires_grad_(False)


def films(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Uneven grey with a gradient of its own strength and direction, and the left half brighter if male."""
    draws = Draws(seed)
    sex = draws.integers(2, n)
    down, right = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    slopes = 0.05 * draws.normal(n, 2)[:, :, None, None]
    image = 0.4 + slopes[:, 0] * down + slopes[:, 1] * right + 0.2 * sex[:, None, None] * (right < 0)
    return image[:, None], sex


def test_trained_it_does_what_the_data_do(trained):
    image, sex = films(200, seed=5)
    noise = trained.abduct(image, {"sex": sex})
    made = trained(noise, {"sex": 1 - sex})
    exact = torch.zeros_like(image)
    exact[..., :8] = 0.2 * (1 - 2 * sex.float())[:, None, None, None]
    error = ((made - image) - exact).flatten(1).norm(dim=1).sum() / exact.flatten(1).norm(dim=1).sum()
    assert error < 0.15


def test_a_null_intervention_changes_nothing_and_without_the_residual_little(trained):
    image, sex = films(50, seed=6)
    inferred = trained.infer(image, {"sex": sex})
    torch.testing.assert_close(trained(inferred.noise, {"sex": sex}), image, atol=1e-6, rtol=0)
    off = trained(inferred.noise.with_pixel_noise("off", Draws(0)), {"sex": sex})
    torch.testing.assert_close(off, inferred.mean, atol=1e-6, rtol=0)
    assert 0 < (off - image).abs().max() < 0.05


def test_half_precision_keeps_composition_exact_and_the_answer_near(trained):
    image, sex = films(20, seed=8)
    exact = trained(trained.abduct(image, {"sex": sex}), {"sex": 1 - sex})
    with torch.autocast("cpu", torch.bfloat16):
        noise = trained.abduct(image, {"sex": sex})
        same, other = trained(noise, {"sex": sex}), trained(noise, {"sex": 1 - sex})
    assert same.dtype == other.dtype == torch.float32
    torch.testing.assert_close(same, image, atol=1e-6, rtol=0)
    assert (other - exact).abs().max() < 0.02  # bfloat16 keeps 8 bits of a velocity


def test_samples_look_like_the_data(trained):
    sex = torch.arange(400) % 2
    drawn = trained(trained.sample_noise(400, Draws(0)), {"sex": sex})
    left = drawn[..., :8].mean(dim=(1, 2, 3))
    assert left[sex == 1].mean() - left[sex == 0].mean() == pytest.approx(0.2, abs=0.03)
    assert left[sex == 0].mean() == pytest.approx(0.4, abs=0.03)


def test_the_loss_of_an_image_is_a_mean_over_times(trained):
    """Eight strata have the same mean as single times, and a fraction of their spread."""
    image, sex = films(300, seed=7)
    single = torch.stack([trained.training_loss(image, {"sex": sex}, Draws(i)).mean() for i in range(40)])
    evenly = torch.stack([trained.infer(image, {"sex": sex}, Draws(i)).loss.mean() for i in range(40)])
    assert evenly.mean() == pytest.approx(single.mean().item(), rel=0.02)
    assert evenly.std() < 0.6 * single.std()


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"model\.template\.of has 'sexx', no parent of the image; did you mean 'sex'"
    ):
        Flow(IMAGE, [SEX], template=TemplateConfig(["sexx"]))
    with pytest.raises(ConfigError, match=r"model\.flow\.components is 300; expected at most 256, the pixels"):
        Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, components=300), SIZE)
    with pytest.raises(DataError, match="images are 1x8x8, the model takes 1x16x16"):
        Flow(IMAGE, [SEX], TINY_FLOW, SIZE).infer(
            torch.zeros(1, 1, 8, 8), {"sex": torch.zeros(1, dtype=torch.int64)}
        )


def test_before_training_a_flow_in_pixels_is_right_for_normal_pixels():
    """Of known spreads: their noise is standard normal, and what it makes has the spreads."""
    spreads = torch.linspace(0.02, 0.1, 256).view(1, 16, 16)
    images = 0.5 + spreads * Draws(0).normal(4000, 1, 16, 16)
    flow = Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, space="pixels", steps=40, t_end=0.0), SIZE)
    sex = {"sex": torch.zeros(4000, dtype=torch.int64)}
    flow.prepare(lambda: [(images, sex)])
    with torch.no_grad():
        latent = flow.abduct(images, sex).latent
        drawn = flow(flow.sample_noise(4000, Draws(1)), sex)
    # A standard deviation of 4,000 is known to 1.1 %; the largest of 256 is three times that off.
    torch.testing.assert_close(latent.std(dim=0), torch.ones(1, 16, 16), rtol=0.05, atol=0)
    torch.testing.assert_close(drawn.std(dim=0), spreads, rtol=0.06, atol=0)


def test_noise_does_not_depend_on_the_parents():
    """Of images whose mean depends on the parent, inverted under the parent that they have."""
    torch.manual_seed(0)
    image, sex = films(1024, seed=11)
    own = 0.1 * Draws(12).normal(1024)[:, None, None, None]
    image = image + own * (torch.arange(16) < 8) + 0.02 * Draws(13).normal(*image.shape)
    config = dataclasses.replace(TINY_FLOW, components=4, width=64, embedding=32, t_end=0.0, steps=12)
    flow = Flow(IMAGE, [SEX], config, SIZE)
    flow.prepare(lambda: [(image, {"sex": sex})])
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(600):
        rows = Draws(step).integers(1024, 256)
        loss = flow.training_loss(image[rows], {"sex": sex[rows]}, Draws(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        latent = flow.abduct(image, {"sex": sex}).latent.flatten(1)
        ignored = flow.abduct(image, {"sex": torch.zeros_like(sex)}).latent.flatten(1)
    assert correlation(latent, sex) < 0.2  # of independent numbers, the largest of four is 0.07 in 1,024 rows
    assert correlation(ignored, sex) > 0.5


def correlation(noise: Tensor, sex: Tensor) -> float:
    """The largest of the noise's coordinates with the parent."""
    noise, centred = noise - noise.mean(dim=0), sex.float() - sex.float().mean()
    return float(((noise * centred[:, None]).mean(dim=0) / noise.std(dim=0) / centred.std()).abs().max())


def test_pixels_that_never_vary_are_abducted_as_noise_where_a_little_is_mixed_in():
    """Half of the pixels vary. Those that do not have no noise of their own, unless it is drawn."""
    spreads = torch.cat([torch.full((1, 16, 8), 0.1), torch.zeros(1, 16, 8)], dim=2)
    images, sex = 0.5 + spreads * Draws(0).normal(2000, 1, 16, 16), {"sex": torch.zeros(2000, dtype=torch.int64)}
    spread = {}
    for t_start in (1.0, 0.95):
        config = dataclasses.replace(TINY_FLOW, space="pixels", steps=30, t_end=0.0, t_start=t_start)
        flow = Flow(IMAGE, [SEX], config, SIZE)
        flow.prepare(lambda: [(images, sex)])
        with torch.no_grad():
            noise = flow.abduct(images, sex, Draws(1))
            again = flow.abduct(images, sex, Draws(1))
            same = flow(noise, sex)
        assert torch.equal(noise.latent, again.latent) and flow.draws_noise == (t_start < 1)
        torch.testing.assert_close(same, images.clamp(0, 1), atol=1e-6, rtol=0)
        spread[t_start] = noise.latent[..., 8:].std()
    # The velocity reckons with a spread of 0.1 there: at 0.95 that of the mixture is sqrt(0.095^2 + 0.05^2).
    assert spread[1.0] < 0.01 and spread[0.95] == pytest.approx(0.05 / 0.1074, rel=0.03)


def test_activations_that_are_computed_again_give_the_same_gradients():
    image, sex = films(6, seed=14)
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        config = dataclasses.replace(TINY_FLOW, space="pixels", checkpoint=checkpoint, dropout=0.3)
        flow = Flow(IMAGE, [SEX], config, SIZE)
        flow.prepare(lambda: [(image, {"sex": sex})])
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        flow.training_loss(image, {"sex": sex}, Draws(0)).mean().backward()
        gradients.append([parameter.grad for parameter in flow.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_start": 0.2, "t_end": 0.2}, r"t_end is 0.2; expected less than model\.flow\.t_start, 0.2"),
        ({"space": "pixels", "widths": [8, 8, 8, 8, 8]}, "a multiple of 32, got 16"),
        ({"guidance": 1.5}, r"guidance is 1\.5 and model\.flow\.unconditional 0"),
    ],
)
def test_times_and_levels_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, **change), SIZE)


def test_more_components_than_films_are_refused():
    flow = Flow(IMAGE, [SEX], TINY_FLOW, SIZE)
    image, sex = films(12)
    with pytest.raises(ConfigError, match="components is 12; expected fewer than the films to train on, 12"):
        flow.prepare(lambda: [(image, {"sex": sex})])


def test_a_direction_in_which_hardly_anything_varies_does_not_explode():
    """Films of three dimensions in twelve components: unseen ones stay of the size of those seen."""
    flow = Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, whiten=1.0), SIZE)
    image, sex = films(64)
    flow.prepare(lambda: [(image, {"sex": sex})])
    other = films(64, seed=3)[0] + 1e-4 * Draws(4).normal(64, 1, 16, 16)
    assert flow.infer(other, {"sex": sex}).coordinates.abs().max() < 20


@pytest.mark.parametrize("width", [33, 50])
def test_any_width_has_groups(width):
    flow = Flow(IMAGE, [SEX], dataclasses.replace(TINY_FLOW, space="pixels", widths=[width, 8]), SIZE)
    none = torch.zeros(0, 1, 16, 16)
    assert len(flow.abduct(none, {"sex": torch.zeros(0, dtype=torch.int64)})) == 0
