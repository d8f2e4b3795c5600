"""Pyro's handlers on the model's sites and our own verbs say the same."""

import pyro
import pytest
import torch
from pyro.poutine import condition, do, trace

from causalcxr.randomness import Draws
from tests.models import chest_batch, tiny_scm

N = 8


def test_trace_has_one_site_per_variable_and_equals_sample():
    scm = tiny_scm()
    pyro.set_rng_seed(7)
    sites = trace(scm).get_trace(N)
    ours = scm.sample(N, seed=7)
    assert [name for name in sites.nodes if name in scm.graph.variables] == list(scm.graph.variables)
    for name, value in ours.items():
        assert torch.equal(sites.nodes[name]["value"], value), name


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"age": torch.tensor(80.0)}, {"age": 80}),
        ({"age": torch.linspace(20, 90, N)}, {"age": torch.linspace(20, 90, N)}),
        ({"sex": torch.tensor(1), "finding": torch.tensor(1)}, {"sex": "male", "finding": "Pleural Effusion"}),
        ({"race": torch.full((N,), 2)}, {"race": "black"}),
    ],
)
def test_do_equals_sampling_under_do(theirs, ours):
    scm = tiny_scm()
    pyro.set_rng_seed(7)
    by_pyro = do(scm, data=theirs)(N)
    by_us = scm.sample(N, do=ours, seed=7)
    for name, value in by_us.items():
        assert torch.equal(by_pyro[name], value), name


def test_condition_scores_like_log_prob():
    scm, batch = tiny_scm(), chest_batch(N)
    pyro.set_rng_seed(7)
    conditioned = trace(condition(scm, data=batch)).get_trace(N)
    ours = scm.log_prob(batch, seed=7)  # the image's bound draws its latents: the same ones
    torch.testing.assert_close(conditioned.log_prob_sum(), ours.sum())
    for name in scm.graph.attributes:
        site = conditioned.nodes[name]
        assert site["is_observed"]
        torch.testing.assert_close(
            site["fn"].log_prob(batch[name]), scm.mechanism(name).log_prob(batch[name], batch)
        )


def test_abduction_is_inference_under_pyros_condition():
    """Given age and finding, Pyro's posterior of the finding's Gumbel noise by rejection equals our abduction."""
    scm = tiny_scm()
    mechanism, n = scm.mechanism("finding"), 100_000
    age = {"age": torch.full((n,), 70.0)}
    noise = mechanism.sample_noise(n, Draws(0))
    accepted = noise[mechanism(noise, age) == 1]
    k = len(accepted)
    abducted = mechanism.abduct(torch.ones(k, dtype=torch.int64), {"age": age["age"][:k]}, Draws(1))
    # Two samples of size k: difference of means within 4.5 standard errors, per coordinate (false alarm < 1e-4).
    error = 4.5 * (2 * accepted.var(0) / k).sqrt()
    assert ((accepted.mean(0) - abducted.mean(0)).abs() < error).all()


def test_nothing_enters_pyros_parameter_store():
    pyro.clear_param_store()
    scm = tiny_scm()
    scm(N)
    scm.counterfactual(chest_batch(N), do={"age": 80})
    trace(condition(scm, data=chest_batch(N))).get_trace(N).log_prob_sum()
    assert not list(pyro.get_param_store().keys())
