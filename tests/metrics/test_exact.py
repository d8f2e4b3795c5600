"""Exact error and alpha on the simulator's own counterfactuals, whose answers are known."""

from typing import Any

import pytest
import torch

from causalcxr import simulator
from causalcxr.metrics.exact import coefficients, error_norms, relative_error, size_in_grey_levels
from causalcxr.metrics.images import measure_exact, measure_images
from tests.models import chest_batch, tiny_scm

NAMES = ("sex", "race", "age", "finding")
EFFUSION_SEEN = simulator.Knobs(planted={"race": {"exposure": 0.1}}, finding_volume=3.0)


@pytest.fixture(scope="module")
def effects():
    """True direct-effect images `(24, 4, 1, 32, 32)` of all attributes; race with a correlate of acquisition."""
    u = simulator.noise(3, range(24))
    p = simulator.attributes(u, knobs=EFFUSION_SEEN)
    other = {"sex": 1 - p["sex"], "race": (p["race"] + 1) % 3, "age": 110 - p["age"], "finding": 1 - p["finding"]}
    factual = simulator.render(u, p, 32, EFFUSION_SEEN)
    images = [simulator.counterfactual(u, {n: other[n]}, 32, "direct", EFFUSION_SEEN) - factual for n in NAMES]
    return torch.stack(images, dim=1)


def test_exact_counterfactuals_have_error_0_and_alpha_1_and_0(effects):
    rows = measure_exact("exact", NAMES, effects, effects)
    for name in NAMES:
        assert rows["exact", "exact", name, "error"][:, 0].max() == 0
        assert rows["exact", "exact", name, "error_mean"].nan_to_num().max() == 0
        for other in NAMES:
            alpha = rows["exact", "exact", name, "alpha", other]
            seen = alpha[~alpha.isnan()]
            assert len(seen) >= 12
            # a float64 solve with condition numbers below 100
            torch.testing.assert_close(seen, torch.full_like(seen, float(name == other)), atol=1e-8, rtol=0)


def test_doing_nothing_has_error_1_and_alpha_0(effects):
    rows = measure_exact("did_nothing", NAMES, torch.zeros_like(effects), effects)
    for name in NAMES:
        error, size = rows["exact", "did_nothing", name, "error"].unbind(1)
        assert torch.equal(error, size)
        assert all(rows["exact", "did_nothing", name, "alpha", other].nan_to_num().eq(0).all() for other in NAMES)


def test_wrong_counterfactuals_get_the_value_that_says_how(effects):
    """Half of do(sex) with .3 of the finding's effect leaked in; do(age) that moves race instead."""
    sex, race, _, finding = effects.unbind(1)
    made = torch.stack([0.5 * sex + 0.3 * finding, race], dim=1)
    alpha, _ = coefficients(made, effects)
    expected = torch.tensor([[0.5, 0.0, 0.0, 0.3], [0.0, 1.0, 0.0, 0.0]]).double()
    # The mixture is rounded to float32, 6e-8 of its size; an effect may be 100 times fainter than the mixture.
    assert (~alpha.isnan()).sum(dim=0).min() >= 12
    torch.testing.assert_close(
        torch.where(alpha.isnan(), expected, alpha), expected.expand_as(alpha), atol=1e-4, rtol=0
    )
    error, size = error_norms(0.5 * sex, sex)
    torch.testing.assert_close(relative_error(error, size, 32 * 32), torch.full((24,), 0.5), atol=1e-5, rtol=0)


def test_condition_number_of_orthogonal_and_of_equal_effects():
    orthogonal = torch.eye(3).view(1, 3, 1, 1, 3)
    alpha, condition = coefficients(2 * orthogonal, orthogonal)
    torch.testing.assert_close(alpha[0], 2 * torch.eye(3, dtype=torch.float64))
    assert condition.item() == pytest.approx(1.0)
    twin = torch.stack([torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4) * (1 + 1e-3 * torch.arange(4))], dim=1)
    assert coefficients(twin, twin)[1].item() > 1e5


def test_invisible_effects_are_left_out():
    """Below 1 grey level there is no ratio and no alpha; its doing is still not laid to the others' account."""
    visible, invisible = torch.zeros(2, 1, 1, 4), torch.full((2, 1, 1, 4), 0.9 / 255)
    visible[:, 0, 0, 0] = 0.5
    true = torch.stack([visible, invisible], dim=1)
    alpha, condition = coefficients(0.7 * true[:, :1] + 5 * true[:, 1:], true)
    torch.testing.assert_close(alpha[:, 0, 0], torch.full((2,), 0.7, dtype=torch.float64), atol=1e-6, rtol=0)
    assert alpha[:, 0, 1].isnan().all()
    assert condition.tolist() == pytest.approx([3.0, 3.0])  # a cosine of 1/2: 1.5 over .5
    assert relative_error(*error_norms(invisible, invisible), 4).isnan().all()


def test_size_is_the_root_mean_square_in_grey_levels():
    torch.testing.assert_close(size_in_grey_levels(torch.full((2, 1, 3, 3), -0.1)), torch.full((2,), 25.5))


def test_the_mean_over_draws_is_compared_with_the_truth():
    """Where the truth is the model's own mean, many draws come closer to it than one."""
    scm, batch, n = tiny_scm(), chest_batch(4), 60
    abduction, elbo = scm.infer(batch, seed=0)
    image = abduction.factual["image"]

    class Mean:
        """Answers with the mean over abductions of its own."""

        def images(self, ids, do=None):
            if not do:
                return image
            made = [scm.counterfactual(scm.abduct(batch, seed=1000 + i), do, effect="direct") for i in range(n)]
            return torch.stack([one["image"] for one in made]).mean(dim=0)

    truth: Any = Mean()
    rows = measure_images(scm, abduction, elbo, batch, truth, torch.arange(4), cycles=1, draws=n, seed=0)
    for name in NAMES:
        one, mean = (rows["exact", who, name, "error"][:, 0].sum() for who in ("model", "expected"))
        # Two independent means of 60 differ by sqrt(2 / 60) = 0.18 of what a draw differs from its expectation.
        assert mean < 0.35 * one
