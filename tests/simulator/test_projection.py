"""Images: exact counterfactuals, bit for bit, and effects of the stated kind and size."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr import simulator
from causalcxr.simulator import Knobs
from causalcxr.support.errors import ConfigError

N = 96
ACQUISITION = Knobs(planted={"race": {"exposure": 0.25, "texture": 0.08, "view": 0.1, "q": 0.62}}, ap_share=0.3)


@pytest.fixture(scope="module")
def u() -> dict[str, Tensor]:
    return simulator.noise(4, range(N))


def rms(difference: Tensor) -> Tensor:
    return difference.square().mean((1, 2, 3)).sqrt()


def flipped(p: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A contrast of each attribute: the other sex or finding, the next group, 25 years nearer to the far end."""
    if name == "age":
        return {"age": torch.where(p["age"] > 55, p["age"] - 25, p["age"] + 25)}
    return {name: (p[name] + 1) % (3 if name == "race" else 2)}


@pytest.mark.parametrize("size", [32, 64, 101])
@pytest.mark.parametrize("knobs", [Knobs(), ACQUISITION])
def test_an_image_is_bit_identical_in_any_batch(u: dict[str, Tensor], size: int, knobs: Knobs) -> None:
    whole = simulator.render(u, simulator.attributes(u, knobs=knobs), size, knobs)
    for ids in ([5], [17, 2, 5], list(range(40))[::-1], [1000, 5, 2000]):
        v = simulator.noise(4, ids)
        images = simulator.render(v, simulator.attributes(v, knobs=knobs), size, knobs)
        for image, subject in zip(images, ids, strict=True):
            assert subject >= N or torch.equal(image, whole[subject])


@pytest.mark.parametrize("effect", ["total", "direct"])
@pytest.mark.parametrize("name", ["sex", "race", "age", "finding", "view"])
def test_do_of_the_own_value_is_the_identity(u: dict[str, Tensor], name: str, effect: str) -> None:
    p = simulator.attributes(u, knobs=ACQUISITION)
    factual = simulator.render(u, p, knobs=ACQUISITION)
    again = simulator.counterfactual(u, {name: p[name]}, effect=effect, knobs=ACQUISITION)
    assert torch.equal(factual, again)


def test_images_are_in_range_and_never_stretched(u: dict[str, Tensor]) -> None:
    p = simulator.attributes(u)
    images = simulator.render(u, p)
    assert images.shape == (N, 1, 64, 64)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    # A fixed window: exposure differs between subjects, so their own extremes do too.
    assert images.amax((1, 2, 3)).std() > 0.02


def test_pixel_noise_is_the_same_under_every_intervention(u: dict[str, Tensor]) -> None:
    """In log exposure the noise is additive: the film curve undone, noisy minus clean is one field per subject.

    Tolerance: .02 standard deviations of noise against float32 through two curves, where the film is not black
    or white.
    """
    clean, noisy = Knobs(pixel_noise=0.0), Knobs(variation=1.0)

    def noise_of(do: dict) -> tuple[Tensor, Tensor]:
        images = [simulator.counterfactual(u, do, knobs=knobs).double() for knobs in (noisy, clean)]
        return torch.logit(images[0]) - torch.logit(images[1]), (images[1] > 0.05) & (images[1] < 0.95)

    (before, visible), (after, still_visible) = noise_of({}), noise_of({"sex": "male", "age": 80, "finding": 1})
    both = visible & still_visible
    assert both.double().mean() > 0.3
    assert before[both].std() > 0.02
    assert (before - after)[both].abs().max() < 1e-4


def test_direct_and_total_effects_differ_exactly_where_the_finding_follows(u: dict[str, Tensor]) -> None:
    p, q = simulator.attributes(u), simulator.attributes(u, {"age": 85})
    total, direct = (simulator.counterfactual(u, {"age": 85}, effect=effect) for effect in ("total", "direct"))
    follows = q["finding"] != p["finding"]
    assert 0.02 < follows.double().mean() < 0.9
    assert torch.equal(total[~follows], direct[~follows])
    with_descendant = simulator.counterfactual(u, {"age": 85, "finding": q["finding"]}, effect="direct")
    assert torch.equal(total, with_descendant)
    for name in ("sex", "finding"):
        do = flipped(p, name)
        assert torch.equal(*(simulator.counterfactual(u, do, effect=effect) for effect in ("total", "direct")))


def test_race_is_not_in_the_image_by_default(u: dict[str, Tensor]) -> None:
    images = [simulator.counterfactual(u, {"race": race}) for race in ("white", "asian", "black")]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


@pytest.mark.parametrize("name", ["sex", "race", "age", "finding"])
def test_least_squares_finds_the_intervened_attribute_and_no_other(u: dict[str, Tensor], name: str) -> None:
    """`alpha` of the exact counterfactual is (0, .., 1, .., 0), and the effects are no near-copies of each other.

    The columns are rendered from attributes, not by the function under test. Tolerance: float32 images, float64
    least squares.
    """
    knobs = Knobs(planted={"race": {"exposure": 0.25, "texture": 0.08}})
    p = simulator.attributes(u, knobs=knobs)
    factual = simulator.render(u, p, knobs=knobs).double()
    names = ["sex", "race", "age", "finding"]
    columns = [simulator.render(u, {**p, **flipped(p, a)}, knobs=knobs).double() - factual for a in names]
    effects = torch.stack([column.flatten() for column in columns], dim=1)
    moved = simulator.counterfactual(u, flipped(p, name), effect="direct", knobs=knobs).double() - factual
    alpha = torch.linalg.lstsq(effects, moved.flatten()[:, None]).solution[:, 0]
    expected = torch.tensor([float(a == name) for a in names], dtype=torch.float64)
    assert (alpha - expected).abs().max() < 1e-6
    unit = effects / effects.norm(dim=0)
    assert torch.linalg.cond(unit.T @ unit) < 3  # 1 is orthogonal


def test_the_effects_are_balanced(u: dict[str, Tensor]) -> None:
    """Root-mean-square differences at 64 x 64: none of the three is 4 times another."""

    def contrast(name: str, high: object, low: object) -> float:
        pair = [simulator.counterfactual(u, {name: value}, effect="direct") for value in (high, low)]
        return rms(pair[0] - pair[1]).median().item()

    sizes = [contrast("sex", 1, 0), contrast("age", 80, 30), contrast("finding", 1, 0)]
    assert max(sizes) / min(sizes) < 4
    assert min(sizes) > 0.02  # of the range 0 to 1; the pixel noise is about .01


def test_a_typical_effusion_whitens_a_costophrenic_angle(u: dict[str, Tensor]) -> None:
    """At the finding's median volume (403 mL) the lower outer part of a lung brightens, the rest does not."""
    v = {**u, "severity": torch.zeros_like(u["severity"]), "effusion_share": torch.zeros_like(u["severity"])}
    v = {**v, "effusion_side": torch.full_like(u["severity"], 0.1)}
    p = {**simulator.attributes(v), "sex": torch.ones(N, dtype=torch.int64)}
    change = simulator.render(v, {**p, "finding": torch.ones_like(p["sex"])})
    change = (change - simulator.render(v, {**p, "finding": torch.zeros_like(p["sex"])}))[:, 0]
    assert (change[:, :, 36:].abs() < 1e-6).all()  # the other side
    assert (change[:, :20].abs() < 1e-6).all()  # the upper lungs
    assert change[:, 32:56, 4:28].amax((1, 2)).quantile(0.05) > 0.25
    assert ((change > 0.1).sum((1, 2)).double().quantile(0.05)) > 20  # pixels out of 4,096


@pytest.mark.parametrize(("size", "tolerance"), [(32, 0.02), (64, 0.01), (128, 0.005)])
def test_sizes_agree(u: dict[str, Tensor], size: int, tolerance: float) -> None:
    """An image is near the average of a larger one, noise apart. Tolerance: twice the measured difference."""
    few = {name: values[:12] for name, values in u.items()}
    p, knobs = simulator.attributes(few), Knobs(pixel_noise=0.0)
    large = F.avg_pool2d(simulator.render(few, p, 256, knobs), 256 // size)
    assert rms(simulator.render(few, p, size, knobs) - large).max() < tolerance


def test_192_agrees_with_64(u: dict[str, Tensor]) -> None:
    few = {name: values[:12] for name, values in u.items()}
    p, knobs = simulator.attributes(few), Knobs(pixel_noise=0.0)
    large = F.avg_pool2d(simulator.render(few, p, 192, knobs), 3)
    assert rms(simulator.render(few, p, 64, knobs) - large).max() < 0.01


def test_the_gradient_with_respect_to_age(u: dict[str, Tensor]) -> None:
    """Autograd against a central difference in float64, step .0005 years: error of the difference below 1e-6.

    Shapes are once continuously differentiable, so the difference is exact to first order only.
    """
    few = {name: values[:6] for name, values in u.items()}
    p = simulator.attributes(few)
    weights = torch.linspace(-1, 1, 32 * 32, dtype=torch.float64).view(32, 32).square()

    def score(age: Tensor) -> Tensor:
        return (simulator.render(few, {**p, "age": age}, 32) * weights).sum((1, 2, 3))

    age = p["age"].double().requires_grad_()
    (gradient,) = torch.autograd.grad(score(age).sum(), age)
    step = 5e-4
    with torch.no_grad():
        difference = (score(age + step) - score(age - step)) / (2 * step)
    assert gradient.abs().min() > 1e-4
    assert (gradient - difference).abs().max() < 1e-3 * gradient.abs().max()


def linear_probe(knobs: Knobs) -> float:
    """Held-out macro AUROC (one against the rest) of a ridge regression from 32 x 32 images to race."""
    n = 3000
    v = simulator.noise(9, range(n))
    p = simulator.attributes(v, knobs=knobs)
    images = simulator.render(v, p, 32, knobs).flatten(1)
    x = torch.cat([images, torch.ones(n, 1)], dim=1).double()
    onehot = F.one_hot(p["race"], 3).double()
    train, test = slice(0, n // 2), slice(n // 2, n)
    gram = x[train].T @ x[train] + 1.0 * torch.eye(x.shape[1])
    scores = x[test] @ torch.linalg.solve(gram, x[train].T @ onehot[train])
    total = 0.0
    for group in range(3):
        positive = onehot[test, group] == 1
        ranks = scores[:, group].argsort().argsort().double() + 1
        n1, n0 = positive.sum().item(), (~positive).sum().item()
        total += (ranks[positive].sum().item() - n1 * (n1 + 1) / 2) / (n1 * n0)
    return total / 3


def test_a_probe_cannot_read_race_with_the_knobs_off() -> None:
    """The standard error of one AUROC is at most .021 (225 against 1,275), so .06 is about 4 of the mean's."""
    assert abs(linear_probe(Knobs()) - 0.5) < 0.06


def test_a_probe_reads_race_with_the_knobs_on() -> None:
    assert linear_probe(Knobs(planted={"race": {"exposure": 0.25}})) > 0.75


def test_the_ap_view_enlarges_the_heart(u: dict[str, Tensor]) -> None:
    knobs = Knobs(ap_share=0.5)
    ap, pa = (simulator.counterfactual(u, {"view": view}, knobs=knobs) for view in ("AP", "PA"))
    assert rms(ap - pa).min() > 0.01
    assert (ap - pa)[:, 0, 28:44, 36:46].mean() > 0.02  # beside the heart's left border


@pytest.mark.parametrize("size", [31, 257, 64.0])
def test_an_impossible_size_is_refused(u: dict[str, Tensor], size: int) -> None:
    with pytest.raises(ConfigError, match="size of an image"):
        simulator.render(u, simulator.attributes(u), size)


def test_an_unknown_effect_is_refused(u: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="'direct' or 'indirect', got 'sideways'"):
        simulator.counterfactual(u, {"sex": 1}, effect="sideways")


def test_the_indirect_effect_is_that_of_the_descendants(u: dict[str, Tensor]) -> None:
    """Of age do(finding = what it becomes), at the age as it is; of sex, which causes no attribute, nothing."""
    followed = simulator.attributes(u, {"age": 85})["finding"]
    indirect = simulator.counterfactual(u, {"age": 85}, effect="indirect")
    assert torch.equal(indirect, simulator.counterfactual(u, {"finding": followed}, effect="direct"))
    factual = simulator.render(u, simulator.attributes(u))
    assert torch.equal(simulator.counterfactual(u, {"sex": 1}, effect="indirect"), factual)


def test_the_float32_gradient_is_finite_for_everyone(u: dict[str, Tensor]) -> None:
    p = simulator.attributes(u)
    age = p["age"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(simulator.render(u, {**p, "age": age}).square().sum(), age)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()
