"""The image's bound against torch's own densities, and against a likelihood that is known by other means.

Everything is float64 on models with random weights. What the networks say is read off by forward hooks; KL terms,
densities and masses are then torch's, none of ours.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from causalcxr.graph import Variable
from causalcxr.mechanisms.hvae import HVAE, Elbo, HVAEConfig
from causalcxr.mechanisms.likelihood import bits_per_dimension
from causalcxr.mechanisms.template import TemplateConfig
from causalcxr.randomness import Draws
from tests.models import TINY_IMAGE

FINDING = Variable("finding", "binary", labels=("absent", "present"))
AGE = Variable("age", "continuous", range=(20.0, 90.0))
IMAGE = Variable("image", "image", ("finding", "age"), channels=1)
ROWS = 6
# Values of a distribution function are known to 1e-16, so the logarithm of a mass of 1e-6, less than any here, to
# 1e-10; it is 14 nats.
MASS_ERROR = 1e-10

CONFIGS = {
    "baseline": TINY_IMAGE,
    "no baseline": replace(TINY_IMAGE, baseline=False),
    "template": TINY_IMAGE,
}

# Two latents of one dimension each, the second with a prior that depends on the first: a grid covers them.
SMALL = HVAEConfig(
    stem=2,
    resolutions=[2, 1],
    widths=[4, 4],
    encoder_blocks=[1, 0],
    decoder_blocks=[1, 2],
    latents=[0, 1],
    embedding=4,
    baseline=False,
)
DRAWS = 100_000  # of its latents, to one estimate
STEP, END = 0.1, 8.0  # of the grid over them, in standard deviations of the first


FAR = 5  # standard errors: a false alarm in two million seeds


@dataclass(frozen=True)
class Pass:
    """What one pass of `elbo` gave, with the laws of its latents as the networks stated them."""

    elbo: Elbo
    posterior: list[Normal]
    prior: list[Normal]

    def kl(self) -> Tensor:
        """Of the latents, `(B,)`."""
        pairs = zip(self.posterior, self.prior, strict=True)
        return sum_rows(kl_divergence(posterior, prior) for posterior, prior in pairs)


def build(config: HVAEConfig, seed: int, spread: float, template: Sequence[str] = ()) -> HVAE:
    """A model whose parameters are all away from their start."""
    torch.manual_seed(seed)
    size = config.resolutions[0] * config.stem
    hvae = HVAE(IMAGE, (FINDING, AGE), config, size, TemplateConfig(list(template))).double().requires_grad_(False)
    for parameter in hvae.parameters():
        parameter.add_(spread * torch.randn_like(parameter))
    return hvae


def build_tiny(name: str) -> HVAE:
    template = ["finding", "age"] if name == "template" else []
    hvae = build(CONFIGS[name], seed=0, spread=0.05, template=template)
    if template:
        hvae.template.brightness.add_(0.05 * torch.randn_like(hvae.template.brightness))
        hvae.template.field.add_(0.02 * torch.randn_like(hvae.template.field))
    return hvae


def make_parents() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    age = 20 + 70 * torch.rand(ROWS, generator=g, dtype=torch.float64)
    return {"finding": torch.randint(2, (ROWS,), generator=g), "age": age}


def draw_image(hvae: HVAE, parents: dict[str, Tensor], seed: int = 3) -> Tensor:
    """Images of 8 bits that the model makes, so that no pixel is out of its reach; black and white are in it."""
    made = hvae(hvae.sample_noise(len(parents["age"]), Draws(seed)), parents)
    return (255 * made).round().to(torch.uint8)


@contextmanager
def outputs_of(*modules: torch.nn.Module) -> Iterator[list[list]]:
    """What each of the modules returns in the calls within, in their order."""
    kept: list[list] = [[] for _ in modules]
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, into=into: into.append(output))
        for module, into in zip(modules, kept, strict=True)
    ]
    yield kept
    for hook in hooks:
        hook.remove()


def run(hvae: HVAE, image: Tensor, parents: dict[str, Tensor], seed: int = 0) -> Pass:
    with outputs_of(hvae.posterior, hvae.prior) as (posteriors, priors):
        elbo = hvae.elbo(image, parents, Draws(seed))
    prior = [normal(*statistics, like=z) for (statistics, _), z in zip(priors, elbo.latents, strict=True)]
    posterior = [
        Normal(p.loc + loc, log_scale.exp()) for (loc, log_scale), p in zip(posteriors, prior, strict=True)
    ]
    return Pass(elbo, posterior, prior)


def normal(loc: Tensor, log_scale: Tensor, like: Tensor) -> Normal:
    return Normal(loc.expand_as(like).double(), log_scale.exp().expand_as(like).double())


def sum_rows(parts) -> Tensor:
    return sum((part.flatten(1).sum(dim=1) for part in parts), torch.zeros((), dtype=torch.float64))


def log_mass(levels: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Of images of 8 bits, `(B,)`: a level has what lies within half a level of it, the outer ones the tails."""
    law = Normal(loc, scale)
    above = torch.where(levels == 255, 1.0, law.cdf((levels.double() + 0.5) / 255))
    below = torch.where(levels == 0, 0.0, law.cdf((levels.double() - 0.5) / 255))
    mass = (above - below).clamp_min(1e-300)  # for latents far out on a grid, which weigh nothing
    return mass.log().flatten(1).sum(dim=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_kl_is_that_of_torch_summed_over_the_layers(name):
    hvae, parents = build_tiny(name), make_parents()
    image = draw_image(hvae, parents)
    found = run(hvae, image, parents)
    expected = found.kl()
    assert len(found.posterior) == 3 and (expected > 0.1).all()
    # Some 150 terms in float64: 1e-16 each, and a little of it lost where they cancel.
    torch.testing.assert_close(found.elbo.kl, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_negative_log_likelihood_is_that_of_differences_of_torchs_distribution_function(name):
    hvae, parents = build_tiny(name), make_parents()
    image = draw_image(hvae, parents)
    elbo = hvae.elbo(image, parents, Draws(0))
    assert (image == 0).any() and (image == 255).any()  # the tails
    torch.testing.assert_close(elbo.nll, -log_mass(image, elbo.loc, elbo.scale), rtol=MASS_ERROR, atol=0)


def test_a_decoder_that_ignores_its_latents_loses_just_the_kl():
    """The likelihood is known: of a Gaussian around the baseline."""
    hvae, parents = build_tiny("baseline"), make_parents()
    hvae.decoder.head.weight.zero_()
    hvae.decoder.head.bias.zero_()
    image = draw_image(hvae, parents)
    baseline = hvae.baseline(hvae.embed(hvae.parent_encoder(parents)))
    scale = torch.full_like(baseline, hvae.config.scale_floor + 0.25)  # the middle of what the decoder can say
    expected = log_mass(image, baseline, scale) - run(hvae, image, parents, seed=2).kl()
    bound = hvae.log_prob(image, parents, Draws(2))
    torch.testing.assert_close(bound, expected, rtol=MASS_ERROR, atol=0)
    bits = bits_per_dimension(-bound, hvae.event_shape)
    torch.testing.assert_close(bits, -expected / (16 * 16 * math.log(2)), rtol=MASS_ERROR, atol=0)


@dataclass(frozen=True)
class Grid:
    """Log-densities of the small model at all latents of a grid, and the log-size of its cells."""

    joint: Tensor  # log p(x, z)
    posterior: Tensor  # log q(z | x)
    log_cell: float

    def log_likelihood(self) -> float:
        return float(self.joint.logsumexp(dim=0)) + self.log_cell

    def gap(self) -> float:
        """KL of q from the true posterior."""
        weight = (self.posterior + self.log_cell).exp()
        return float((weight * (self.posterior - self.joint)).sum()) + self.log_likelihood()


@dataclass(frozen=True)
class Small:
    """The small model with one image of its own and the parents of that."""

    hvae: HVAE
    image: Tensor
    parents: dict[str, Tensor]

    def run(self, n: int, seed: int) -> Pass:
        """One pass with n draws of the latents."""
        parents = {name: value.expand(n) for name, value in self.parents.items()}
        return run(self.hvae, self.image.expand(n, -1, -1, -1), parents, seed)

    def log_weights(self, found: Pass) -> Tensor:
        """log p(x, z) - log q(z | x) of the draws of a pass, `(n,)`."""
        latents = found.elbo.latents
        prior = sum_rows(law.log_prob(z) for law, z in zip(found.prior, latents, strict=True))
        posterior = sum_rows(law.log_prob(z) for law, z in zip(found.posterior, latents, strict=True))
        return log_mass(self.image, found.elbo.loc, found.elbo.scale) + prior - posterior

    def on_grid(self, step: float) -> Grid:
        """The model by its parts, at given latents: nothing is drawn, and `elbo` is not called."""
        side = torch.arange(-END, END + step / 2, step, dtype=torch.float64)
        latents = [z.view(-1, 1, 1, 1) for z in torch.cartesian_prod(side, side).unbind(dim=1)]
        n, hvae = len(latents[0]), self.hvae
        embedding = hvae.embed(hvae.parent_encoder(self.parents)).expand(n, -1)
        features = [part.expand(n, -1, -1, -1) for part in hvae.encoder(self.image.double() / 255 - 0.5)]
        first = Normal(torch.zeros_like(latents[0]), torch.ones_like(latents[0]))
        prior = [first, normal(*hvae.prior(1, None, latents[0])[0], like=latents[1])]
        posterior = []

        def given(layer: int, hidden: Tensor) -> Tensor:
            loc, log_scale = hvae.posterior(layer, hidden, features, embedding)
            law = Normal(prior[layer].loc + loc, log_scale.exp())
            posterior.append(law.log_prob(latents[layer]))
            return latents[layer]

        loc, scale = hvae.decoder(embedding, None, given)
        of_latents = sum_rows(law.log_prob(z) for law, z in zip(prior, latents, strict=True))
        return Grid(log_mass(self.image, loc, scale) + of_latents, sum_rows(posterior), 2 * math.log(step))


@pytest.fixture(scope="module")
def small() -> Small:
    hvae = build(SMALL, seed=9, spread=0.2)
    parents = {"finding": torch.tensor([1]), "age": torch.tensor([50.0], dtype=torch.float64)}
    return Small(hvae, draw_image(hvae, parents, seed=9), parents)


@pytest.fixture(scope="module")
def grid(small) -> Grid:
    return small.on_grid(STEP)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def test_the_grid_is_fine_and_wide_enough(small, grid):
    """Sums of smooth densities over a grid are all but exact; the tests that follow tolerate far more."""
    assert abs(grid.log_likelihood() - small.on_grid(2 * STEP).log_likelihood()) < 1e-6
    assert abs(float((grid.posterior + grid.log_cell).exp().sum()) - 1) < 1e-9


def test_the_bound_is_the_likelihood_less_the_gap_to_the_true_posterior(small, grid):
    elbo = small.run(DRAWS, seed=0).elbo
    bound, error = mean_and_error(-(elbo.nll + elbo.kl))
    assert bound < grid.log_likelihood() and grid.gap() > 1  # nats
    assert error < 0.02 and abs(bound + grid.gap() - grid.log_likelihood()) < FAR * error


def test_importance_weighted_estimates_rise_from_the_bound_to_the_likelihood(small, grid):
    """Burda et al. 2016, theorem 1. Fresh draws for every number of samples: of the same ones it holds for any."""
    elbo = small.run(DRAWS, seed=1).elbo
    bound, bound_error = mean_and_error(-(elbo.nll + elbo.kl))
    estimates = []
    for samples in (1, 10, 100):
        weights = small.log_weights(small.run(DRAWS, seed=1 + samples)).view(-1, samples)
        estimates.append(mean_and_error(weights.logsumexp(dim=1) - math.log(samples)))
    one, one_error = estimates[0]
    assert abs(bound - one) < FAR * math.hypot(bound_error, one_error)  # the KL is that of the draws, on average
    for (low, low_error), (high, high_error) in pairwise(estimates):
        assert high - low > FAR * math.hypot(low_error, high_error)
    high, error = estimates[-1]
    assert high < grid.log_likelihood() + FAR * error


def test_all_draws_together_estimate_the_likelihood(small, grid):
    weights = small.log_weights(small.run(DRAWS, seed=2))
    estimate = float(weights.logsumexp(dim=0)) - math.log(DRAWS)
    mean, error = mean_and_error((weights - weights.max()).exp())
    error = error / mean  # of the logarithm of a mean, to first order
    assert error < 0.03 and abs(estimate - grid.log_likelihood()) < FAR * error
