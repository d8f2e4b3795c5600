"""Gumbel-max abduction: the right posterior, not the formula in wide circulation."""

import pytest
import torch

from causalcxr.graph import Variable
from causalcxr.mechanisms.categorical import CategoricalMechanism, gumbel_posterior
from causalcxr.randomness import Draws

N = 200_000
LOGITS = torch.tensor([[2.0, -1.0, 0.5, -4.0]])


def observed(seed: int = 0) -> torch.Tensor:
    noise = Draws(seed).gumbel(N, 4)
    return (LOGITS.log_softmax(-1) + noise).argmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_observation_comes_back(dtype):
    k = observed()
    logits = LOGITS.to(dtype).expand(N, -1)
    u = gumbel_posterior(logits, k, Draws(1))
    assert torch.equal((logits.log_softmax(-1) + u).argmax(-1), k)  # 100 % of 200,000
    rarest = torch.full((N,), 3)  # probability .002: the hardest to reproduce
    u = gumbel_posterior(logits, rarest, Draws(2))
    assert torch.equal((logits.log_softmax(-1) + u).argmax(-1), rarest)


@pytest.mark.parametrize("constant", [-7.0, 3.0, 100.0])
def test_a_constant_on_the_logits_changes_nothing(constant):
    k = observed()
    logits = LOGITS.double().expand(N, -1)
    plain = gumbel_posterior(logits, k, Draws(1))
    shifted = gumbel_posterior(logits + constant, k, Draws(1))
    torch.testing.assert_close(shifted, plain, atol=1e-9, rtol=0)  # rounding of logits of size 100
    do = torch.tensor([[0.0, 1.0, 0.0, 2.0]]).double()
    assert torch.equal((do + plain).argmax(-1), (do + shifted).argmax(-1))


def test_noise_is_gumbel_when_observations_are_the_models_own():
    u = gumbel_posterior(LOGITS.expand(N, -1), observed(), Draws(1))
    # Mean .5772 and variance pi^2/6 of each coordinate; 4.5 standard errors: about 1 false alarm in 10,000 runs.
    error = 4.5 * (1.6449 / N) ** 0.5
    assert ((u.mean(0) - 0.5772).abs() < error).all()
    assert ((u.var(0) - 1.6449).abs() < 4.5 * (1.6449**2 * 4.4 / N) ** 0.5).all()  # kurtosis of a Gumbel is 5.4
    correlation = torch.corrcoef(u.T) - torch.eye(4)
    assert correlation.abs().max() < 4.8 / N**0.5


def test_interventional_law_is_recovered():
    """P(finding | do(age)) by abduction, action, prediction over the population equals the mechanism's own."""
    finding = Variable("finding", "binary", ("age",), ("no", "yes"))
    age = Variable("age", "continuous", range=(0.0, 100.0))
    mechanism = CategoricalMechanism(finding, (age,))
    with torch.no_grad():  # P(yes) = .10 at 40 years and .23 at 60
        a, b = torch.tensor([0.10, 0.23]).logit()
        slope = (b - a) / (20 / 25.0)  # the encoder divides age by 25
        mechanism.conditioner.network[-1].weight.zero_()
        mechanism.conditioner.linear.weight.copy_(torch.tensor([[0.0], [slope]]))
        mechanism.conditioner.bias.copy_(torch.tensor([0.0, a - slope * (40 - 50) / 25.0]))
    young, old = {"age": torch.full((N,), 40.0)}, {"age": torch.full((N,), 60.0)}
    factual = mechanism(mechanism.sample_noise(N, Draws(0)), young)
    assert abs(factual.float().mean() - 0.10) < 4.5 * (0.09 / N) ** 0.5
    noise = mechanism.abduct(factual, young, Draws(1))
    assert torch.equal(mechanism(noise, young), factual)
    counterfactual = mechanism(noise, old)
    assert abs(counterfactual.float().mean() - 0.23) < 4.5 * (0.1771 / N) ** 0.5
    assert (counterfactual >= factual).all()  # for two classes Gumbel-max is monotone: nobody loses the finding
