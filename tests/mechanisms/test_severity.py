"""Severities: measured, abducted and carried; known laws are recovered; the image's loss leaves them alone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from causalcxr.data.rows import Observed
from causalcxr.graph import Variable
from causalcxr.mechanisms.hvae import HVAE
from causalcxr.mechanisms.severity import Causes, Severity
from causalcxr.randomness import Draws
from causalcxr.training.objectives import SeverityObjective
from tests.models import TINY_IMAGE, halves_severity

FINDING = Variable("finding", "binary", labels=("absent", "present"))
IMAGE = Variable("image", "image", ("finding",), channels=1)
N = 4000
SHIFT, ALONG, SPREAD = 4.0, 0.5, 0.5  # of the known law below


def make_rows(n: int = N) -> tuple[dict[str, Tensor], Tensor]:
    """The parents, and the evidence `(n, 2)`: left = 2 + 4 finding + noise; right = 3 + 0.5 left + noise."""
    g = torch.Generator().manual_seed(10_000)  # not that of any draws below
    finding = torch.randint(2, (n,), generator=g)
    left = 2 + SHIFT * finding + SPREAD * torch.randn(n, generator=g)
    right = 3 + ALONG * left + SPREAD * torch.randn(n, generator=g)
    return {"finding": finding}, torch.stack([left, right], dim=1)


@pytest.fixture(scope="module")
def fitted() -> Severity:
    """Severities whose flows have learnt the known law."""
    parents, evidence = make_rows()
    torch.manual_seed(0)
    severity = halves_severity([FINDING])
    severity.calibrate(evidence, parents)
    objective, steps = SeverityObjective(severity), 800
    optimizer = torch.optim.AdamW(severity.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        losses = objective(Observed(parents, evidence), Draws(step))
        optimizer.zero_grad()
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        optimizer.step()
    return severity.requires_grad_(False)


def image_of(evidence: Tensor) -> Tensor:
    """Images whose halves have these brightnesses `(B, 2)`."""
    image = torch.empty(len(evidence), 1, 16, 16)
    image[..., :8], image[..., 8:] = (side.view(-1, 1, 1, 1) / 10 for side in evidence.unbind(dim=1))
    return image


def test_nine_in_ten_without_the_finding_stay_below_the_floor():
    g = torch.Generator().manual_seed(0)
    finding = torch.arange(2000) % 2
    sides = [top * torch.rand(2000, generator=g) + 10 * finding for top in (1.0, 3.0)]
    severity = halves_severity([FINDING], of=["finding"])
    severity.calibrate(torch.stack(sides, dim=1), {"finding": finding})
    # Quantiles of 1,000 uniform draws: a standard error of .01 of the range.
    torch.testing.assert_close(severity.floor, torch.tensor([0.9, 2.7]), atol=0.1, rtol=0)
    none = torch.tensor([[-4.0, 0.0], [0.5, 2.0]])
    assert not severity.total(none).any() and not severity.above_floor(none).any()
    some = severity.above_floor(severity.floor + torch.tensor([[1.0, -1.0], [2.0, -1.0]]))
    torch.testing.assert_close(some, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))


def test_evidence_below_the_floor_is_abducted_too(fitted):
    """Of two films that show nothing the one with more evidence has more when the finding is added."""
    severity, finding = copy.deepcopy(fitted), torch.zeros(2, dtype=torch.int64)
    severity.floor.fill_(4.0)  # above all without the finding
    seen = torch.tensor([[1.5, 4.0], [2.5, 4.0]])
    assert not severity.above_floor(seen).any()
    noise = severity.abduct(torch.zeros(2, 1, 16, 16), {"finding": finding}, _NoNoise(), seen).noise
    added = severity(noise, {"finding": finding + 1})[:, 0]
    torch.testing.assert_close(added, seen[:, 0] + SHIFT, atol=0.3, rtol=0)  # the law's shift


class _NoNoise(Draws):
    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(shape, dtype=dtype)


def test_a_known_law_is_carried_to_another_label(fitted):
    """All noises are Gaussian, so the answer is exact: left moves by 4, right along with it.

    The measurement's noise hides some of how right goes along with left, and that share is exact, too.
    """
    parents, evidence = make_rows()
    present = parents["finding"] == 1
    found = fitted.abduct(image_of(evidence), parents, Draws(0))
    moved = fitted(found.noise, {"finding": 1 - parents["finding"]})
    sign = 1 - 2 * parents["finding"]
    for i in range(2):
        change = (moved[:, i] - found.values[:, i]) * sign
        expected = evidence[present, i].mean() - evidence[~present, i].mean()
        # The flows are fitted on 4,000 rows: within 3 % on the mean, and 5 % on the median row.
        assert abs(float(change.mean() / expected) - 1) < 0.03
        assert float((change / expected - 1).abs().median()) < 0.05


def test_abducted_noise_is_standard_normal_and_independent_of_the_label(fitted):
    parents, evidence = make_rows()
    noise = fitted.abduct(image_of(evidence), parents, Draws(0)).noise
    for label in (0, 1):
        those = noise[parents["finding"] == label]
        assert those.mean(dim=0).abs().max() < 0.1 and (those.std(dim=0) - 1).abs().max() < 0.1
        assert torch.corrcoef(those.T)[0, 1].abs() < 0.1


def test_same_parents_give_the_measured_values_back():
    parents, evidence = make_rows(64)
    severity = halves_severity([FINDING])
    severity.calibrate(evidence, parents)
    found = severity.abduct(image_of(evidence), parents, Draws(0))
    torch.testing.assert_close(severity(found.noise, parents), found.values, atol=1e-3, rtol=0)


def test_measurement_noise_has_the_declared_size():
    parents, evidence = make_rows()
    severity = halves_severity([FINDING], noise=0.3)
    severity.calibrate(evidence, parents)
    image = image_of(evidence)
    perturbed = severity.abduct(image, parents, Draws(0)).values
    ratio = (perturbed - severity.observe(image)).std(dim=0) / evidence.std(dim=0)
    assert (ratio - 0.3).abs().max() < 0.02


def test_divergence_is_that_of_the_two_densities():
    parents, evidence = make_rows(64)
    severity = halves_severity([FINDING])
    severity.calibrate(evidence, parents)
    image = image_of(evidence)
    found = severity.abduct(image, parents, Draws(0))
    expected = Normal(severity.observe(image), 0.3 * severity.encoder.scale).log_prob(found.values).sum(dim=1)
    expected += torch.stack(list(severity.losses(Causes(parents, found.values)).values())).sum(dim=0)
    torch.testing.assert_close(found.kl, expected, atol=1e-4, rtol=1e-4)


def test_the_images_loss_leaves_severities_alone_and_its_decoder_uses_them():
    torch.manual_seed(0)
    parents, evidence = make_rows(16)
    severity = halves_severity([FINDING])
    severity.calibrate(evidence, parents)
    hvae = HVAE(IMAGE, (FINDING,), TINY_IMAGE, severity)
    image = image_of(evidence)
    elbo = hvae.elbo(image, parents, Draws(0))
    elbo.nats().sum().backward()
    assert all(parameter.grad is None for parameter in severity.parameters())
    noise = elbo.noise
    assert noise.severity is not None and noise.severity.shape == (16, 2)
    other = hvae(replace(noise, severity=noise.severity + 2), parents)
    assert (other - hvae(noise, parents)).abs().amax() > 1e-3


def test_repeat_and_select_reach_the_severities():
    parents, evidence = make_rows(6)
    severity = halves_severity([FINDING])
    severity.calibrate(evidence, parents)
    noise = HVAE(IMAGE, (FINDING,), TINY_IMAGE, severity).sample_noise(6, Draws(0))
    twice = noise.repeat(2)
    assert twice.severity is not None and noise.severity is not None
    assert torch.equal(twice.severity[6:], noise.severity)
    chosen = noise.select(torch.tensor([4, 1])).severity
    assert chosen is not None and torch.equal(chosen, noise.severity[[4, 1]])
