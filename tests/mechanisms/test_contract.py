"""One contract for every mechanism: round trip, gradients, density, tails, save and load, float64."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from causalcxr.graph import Variable
from causalcxr.mechanisms.base import Mechanism
from causalcxr.mechanisms.categorical import CategoricalMechanism
from causalcxr.mechanisms.flow import Flow
from causalcxr.mechanisms.hvae import HVAE
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise
from causalcxr.mechanisms.spline import SplineMechanism
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.randomness import Draws
from causalcxr.support.files import load_tensors, save_tensors
from tests.models import SIZE, TINY_FLOW, TINY_IMAGE

N = 64
SEX = Variable("sex", "binary", labels=("female", "male"))
RACE = Variable("race", "categorical", labels=("white", "asian", "black"))
AGE = Variable("age", "continuous", range=(18.0, 100.0), unit="years")
PARENTS = (SEX, RACE, AGE)


@dataclass(frozen=True)
class Case:
    build: Callable[[], Mechanism]
    kind: str


def _variable(kind: str, *parents: str) -> Variable:
    labels = {"binary": ("no", "yes"), "categorical": ("a", "b", "c", "d")}.get(kind, ())
    return Variable("v", kind, parents, labels, (0.0, 10.0) if kind == "continuous" else None, channels=1)


def _with_template(image: Variable) -> HVAE:
    """Every parent brightens the image, and moves what it shows by up to a pixel."""
    hvae = HVAE(image, PARENTS, TINY_IMAGE, SIZE, TemplateConfig([parent.name for parent in PARENTS]))
    for effects, size in ((hvae.template.brightness, 0.05), (hvae.template.field, 0.02)):
        effects.add_(size * torch.randn_like(effects))
    return hvae


def _flow(image: Variable, parents: Sequence[Variable], space: str = "components") -> Flow:
    """Fitted to smooth images, with a template, so that components and displacements are no zeros."""
    flow = Flow(image, parents, replace(TINY_FLOW, space=space), SIZE, TemplateConfig([parents[-1].name]))
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(64, image.channels, 4, 4, generator=generator), size=16)
    flow.prepare(lambda: [(images, parents_of(64))])
    return flow


def _cases() -> dict[str, Case]:
    cases = {}
    for with_parents in (False, True):
        parents = PARENTS if with_parents else ()
        names = tuple(p.name for p in parents)
        suffix = "given parents" if with_parents else "root"
        for kind in ("binary", "categorical"):
            v = _variable(kind, *names)
            cases[f"{kind} {suffix}"] = Case(lambda v=v, p=parents: CategoricalMechanism(v, p), kind)
        v = _variable("continuous", *names)
        cases[f"spline {suffix}"] = Case(lambda v=v, p=parents: SplineMechanism(v, p), "continuous")
    image = _variable("image", "sex", "race", "age")
    colour = Variable("v", "image", ("sex",), channels=3)
    cases["hvae grey"] = Case(lambda: HVAE(image, PARENTS, TINY_IMAGE, SIZE), "image")
    cases["hvae with template"] = Case(lambda: _with_template(image), "image")
    cases["flow in pixels"] = Case(lambda: _flow(image, PARENTS, space="pixels"), "image")
    cases["flow in pixels, colour"] = Case(lambda: _flow(colour, (SEX,), space="pixels"), "image")
    cases["flow grey"] = Case(lambda: _flow(image, PARENTS), "image")
    cases["flow colour"] = Case(lambda: _flow(colour, (SEX,)), "image")
    cases["hvae colour"] = Case(lambda: HVAE(colour, (SEX,), TINY_IMAGE, SIZE), "image")
    return cases


CASES = _cases()
ATTRIBUTES = [name for name, case in CASES.items() if case.kind != "image"]


@pytest.fixture(params=CASES)
def mechanism(request) -> Mechanism:
    return make(request.param)


def make(name: str) -> Mechanism:
    """A mechanism whose parameters are all away from their start, so that a forgotten one shows."""
    torch.manual_seed(0)
    built = CASES[name].build()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def parents_of(n: int = N, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "sex": torch.randint(2, (n,), generator=g),
        "race": torch.randint(3, (n,), generator=g),
        "age": (18 + 82 * torch.rand(n, generator=g)).to(dtype),
    }


def noise_parts(noise: Any) -> list[Tensor]:
    """All tensors of a noise that is drawn."""
    if isinstance(noise, Tensor):
        return [noise]
    values = [getattr(noise, field.name) for field in fields(noise)]
    values = [part for value in values for part in (value if isinstance(value, tuple) else [value])]
    return [part for part in values if isinstance(part, Tensor)]


def loss_of(mechanism: Mechanism, value: Tensor, pa: dict[str, Tensor]) -> Tensor:
    """What training minimises: the negative log-density, or an image mechanism's own loss."""
    if isinstance(mechanism, ImageMechanism):
        return mechanism.training_loss(value, pa, Draws(1))
    return -mechanism.log_prob(value, pa, Draws(1))


def test_values_have_the_declared_form(mechanism):
    value = mechanism(mechanism.sample_noise(N, Draws(0)), parents_of())
    v = mechanism.variable
    if v.is_discrete:
        assert value.dtype == torch.int64 and value.shape == (N,)
        assert value.min() >= 0 and value.max() < len(v.labels)
    elif v.kind == "continuous":
        assert value.dtype == torch.float32 and value.shape == (N,)
        assert value.min() >= 0 and value.max() <= 10
    else:
        assert value.dtype == torch.float32 and value.shape == (N, v.channels, 16, 16)
        assert value.min() >= 0 and value.max() <= 1


def test_abduction_then_prediction_gives_the_value_back(mechanism):
    pa = parents_of()
    value = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    again = mechanism(mechanism.abduct(value, pa, Draws(1)), pa)
    # Discrete: exactly. Continuous and image: float32 rounding through exp, sigmoid and the pixel scale.
    tolerance = 0 if mechanism.variable.is_discrete else 1e-4
    torch.testing.assert_close(again, value, atol=tolerance, rtol=0)


def test_a_replica_abducts_the_same_images_in_another_way(mechanism):
    """Doing nothing changes nothing there either; elsewhere the two differ by what abduction leaves open."""
    if not isinstance(mechanism, ImageMechanism):
        return
    pa, replica = parents_of(), mechanism.replica()
    image = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    first, second = mechanism.abduct(image, pa, Draws(1)), replica.abduct(image, pa, Draws(2))
    torch.testing.assert_close(replica(second, pa), image, atol=1e-4, rtol=0)
    assert not torch.equal(noise_parts(first)[0], noise_parts(second)[0])
    assert all(torch.equal(p, q) for p, q in zip(mechanism.parameters(), replica.parameters(), strict=True))
    again = mechanism.abduct(image, pa, Draws(1))
    assert torch.equal(noise_parts(first)[0], noise_parts(again)[0])  # the original is as it was


def test_draws_follow_the_seed(mechanism):
    pa = parents_of()
    value = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    for first, again in [
        (mechanism.sample_noise(N, Draws(5)), mechanism.sample_noise(N, Draws(5))),
        (mechanism.abduct(value, pa, Draws(5)), mechanism.abduct(value, pa, Draws(5))),
    ]:
        assert all(torch.equal(a, b) for a, b in zip(noise_parts(first), noise_parts(again), strict=True))
    other = mechanism.sample_noise(N, Draws(6))
    assert not torch.equal(noise_parts(mechanism.sample_noise(N, Draws(5)))[0], noise_parts(other)[0])


def test_gradient_reaches_every_parameter(mechanism):
    pa = parents_of()
    with torch.no_grad():
        value = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    loss_of(mechanism, value, pa).sum().backward()
    for name, parameter in mechanism.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_has_one_finite_value_a_row(mechanism):
    pa = parents_of()
    value = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    loss = loss_of(mechanism, value, pa)
    assert loss.shape == (N,) and loss.isfinite().all()


def test_rows_do_not_touch_one_another(mechanism):
    pa = parents_of()
    noise = mechanism.sample_noise(N, Draws(0))
    whole = mechanism(noise, pa)
    part = {name: value[:5] for name, value in pa.items()}
    few = mechanism(noise.select(slice(5)) if isinstance(noise, ImageNoise) else noise[:5], part)
    torch.testing.assert_close(few, whole[:5], atol=1e-5, rtol=1e-5)  # convolutions may sum in another order


def test_saved_and_loaded_it_is_the_same(mechanism, tmp_path, request):
    name = request.node.callspec.params["mechanism"]
    save_tensors(tmp_path / "m.safetensors", mechanism.state_dict(), {})
    fresh = CASES[name].build()
    fresh.load_state_dict(load_tensors(tmp_path / "m.safetensors")[0])
    pa, noise = parents_of(), mechanism.sample_noise(N, Draws(0))
    assert torch.equal(fresh(noise, pa), mechanism(noise, pa))


def test_float64_round_trip(mechanism):
    mechanism.double()
    pa = parents_of(dtype=torch.float64)
    value = mechanism(mechanism.sample_noise(N, Draws(0)), pa)
    assert value.dtype in (torch.int64, torch.float64)
    again = mechanism(mechanism.abduct(value, pa, Draws(1)), pa)
    torch.testing.assert_close(again, value, atol=0 if value.dtype == torch.int64 else 1e-9, rtol=0)


def test_parameters_stay_out_of_pyros_global_store(mechanism):
    import pyro

    pyro.clear_param_store()
    mechanism(mechanism.sample_noise(4, Draws(0)), parents_of(4))
    assert len(list(pyro.get_param_store().keys())) == 0


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_density_integrates_to_one(name):
    mechanism, v = make(name).double(), CASES[name].kind
    one = {key: value[:1] for key, value in parents_of(dtype=torch.float64).items()}
    if v != "continuous":
        values = torch.arange(len(mechanism.variable.labels))
        pa = {key: value.expand(len(values)) for key, value in one.items()}
        total = mechanism.log_prob(values, pa).exp().sum()
        assert abs(total.item() - 1) < 1e-12
        return
    values = torch.linspace(0, 10, 400_001, dtype=torch.float64)
    pa = {key: value.expand(len(values)) for key, value in one.items()}
    total = torch.trapezoid(mechanism.log_prob(values, pa).exp(), values)
    assert abs(total.item() - 1) < 1e-3  # trapezoids of width 2.5e-5 on a density with kinks at the knots


@pytest.mark.parametrize("name", [n for n in ATTRIBUTES if n.startswith("spline")])
def test_spline_density_is_the_slope_of_its_inverse(name):
    mechanism = make(name).double()
    pa = parents_of(dtype=torch.float64)
    value = torch.linspace(0.5, 9.5, N, dtype=torch.float64, requires_grad=True)
    noise = mechanism.abduct(value, pa)
    (slope,) = torch.autograd.grad(noise.sum(), value)
    by_hand = -0.5 * noise.square() - 0.5 * math.log(2 * math.pi) + slope.log()
    torch.testing.assert_close(mechanism.log_prob(value, pa), by_hand, atol=1e-9, rtol=0)
    step = 1e-6  # and the numerical derivative, good to about step^2 / rounding = 1e-7 relative
    numerical = (mechanism.abduct(value + step, pa) - mechanism.abduct(value - step, pa)) / (2 * step)
    torch.testing.assert_close(numerical, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ATTRIBUTES if n.startswith("spline")])
def test_spline_noise_round_trip_in_float64(name):
    mechanism = make(name).double()
    pa = parents_of(dtype=torch.float64)
    noise = torch.linspace(-6, 6, N, dtype=torch.float64)  # the spline ends at 4: the tails are in it
    again = mechanism.abduct(mechanism(noise, pa), pa)
    assert (again - noise).abs().max() < 1e-5


@pytest.mark.parametrize("name", [n for n in ATTRIBUTES if n.startswith("spline")])
@pytest.mark.parametrize("end", [1e-4, 10 - 1e-4])
def test_spline_trains_on_a_batch_that_lies_wholly_in_the_tails(name, end):
    mechanism, pa = make(name), parents_of()
    value = torch.full((N,), end)
    assert (mechanism.abduct(value, pa).abs() > mechanism.config.bound).all()
    optimizer = torch.optim.Adam(mechanism.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = -mechanism.log_prob(value, pa).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in mechanism.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1  # it learns, by more than a nat
