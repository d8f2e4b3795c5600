"""Effects of a contrast against known ones."""

import numpy as np
import pytest

from causalcxr.audit.effects import measure_effect, sign_flip_p
from causalcxr.audit.leak import leak_of


def no_leak(weights: np.ndarray) -> np.ndarray:
    return np.zeros(len(weights))


def rows(n: int = 400, shift: float = 0.3, seed: int = 0):
    """Scores of two counterfactuals that differ by a shift and a little noise; a placebo with that noise alone."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=n)
    after = before + shift + 0.1 * rng.normal(size=n)
    placebo = (before, before + 0.1 * rng.normal(size=n))
    return before, after, placebo


def test_the_shift_is_the_mean_difference_and_its_interval_covers_the_truth():
    covered = 0
    for seed in range(60):
        before, after, placebo = rows(seed=seed)
        found = measure_effect(before, after, placebo, None, 0.0, np.arange(400), no_leak)
        assert found.statistics["shift"].value == pytest.approx((after - before).mean())
        covered += found.statistics["shift"].low <= 0.3 <= found.statistics["shift"].high
        assert found.statistics["shift"].low < found.within[0] < found.within[1] < found.statistics["shift"].high
    assert covered >= 52  # 51 or fewer of 60 have a chance of 0.01 at a coverage of 0.95


def test_a_noisy_model_without_an_effect_has_none_once_the_placebo_is_taken_off():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=3000)
    sides = [scores + rng.normal(size=3000) for _ in range(4)]
    found = measure_effect(
        sides[0], sides[1], (sides[2], sides[3]), None, 0.5, np.arange(3000), no_leak
    ).statistics
    assert found["placebo"].value > 1
    assert abs(found["absolute"].value) < 0.1 and abs(found["flips"].value) < 4


def test_rates_and_auroc_are_counted_by_hand():
    """Six patients, three ill. The threshold is 0; one ill patient and one other rise over it."""
    before = np.array([-1.0, 1.0, 2.0, -1.0, -2.0, 0.5])
    after = np.array([1.0, 1.0, 2.0, -1.0, 0.4, 0.5])
    positive = np.array([True, True, True, False, False, False])
    found = measure_effect(before, after, (before, before), positive, 0.0, np.arange(6), no_leak)
    got = {name: found.statistics[name].value for name in found.statistics}
    assert got["sensitivity"] == pytest.approx(100 / 3)
    assert got["false_positives"] == pytest.approx(100 / 3)
    assert got["flagged"] == pytest.approx(100 / 3)
    assert got["flips"] == pytest.approx(100 / 3)
    assert got["auroc"] == pytest.approx(100 * (9 - 7.5) / 9)  # pairs in order: 9 of 9 after, 7.5 before
    assert found.subgroups["with the finding"].value == pytest.approx(2 / 3)
    assert found.subgroups["without the finding"].value == pytest.approx(2.4 / 3)


def test_sign_flips_hold_their_level_with_several_films_a_patient():
    """At 0.05, 17 or more of 150 have a chance of 0.002. Counted film by film it would be rejected too often."""
    rejected, by_film = 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(40), 5)
        shift = rng.normal(size=40)[patients] + 0.2 * rng.normal(size=200)
        rejected += sign_flip_p(shift, patients, seed) < 0.05
        by_film += sign_flip_p(shift, np.arange(200), seed) < 0.05
    assert rejected < 17 < by_film


def test_sign_flips_find_a_shift_and_nothing_where_there_is_none():
    rng = np.random.default_rng(0)
    assert sign_flip_p(0.3 + rng.normal(size=500), np.arange(500)) < 0.001
    assert sign_flip_p(np.zeros(50), np.arange(50)) == 1.0


def people(n: int, strength: float, seed: int, number: bool = False):
    """Scores of people whose counterfactuals go only a share of the way; another cause hangs on the attribute.

    The true effect is 1 from 0 to 1; a patient's own score is right.
    """
    rng = np.random.default_rng(seed)
    other = rng.normal(size=n)
    own = rng.normal(size=n) + other if number else (rng.random(n) < 1 / (1 + np.exp(-other))).astype(float)
    real = own + 2 * other + 0.5 * rng.normal(size=n)
    sides = [real + strength * (value - own) for value in (0.0, 1.0)]
    return sides, own, other[:, None]


@pytest.mark.parametrize("number", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.5, 1.4])
def test_the_checked_shift_is_the_true_one_however_faint_the_counterfactuals(strength, number):
    """Its interval covers in 36 or more of 40: 35 or fewer have a chance of 0.01 at a coverage of 0.95."""
    covered, values = 0, []
    for seed in range(40):
        (before, after), own, others = people(600, strength, seed, number)
        leak = leak_of((before + after) / 2, own, others, np.ones(600, dtype=bool))
        found = measure_effect(before, after, (before, before), None, 0.0, np.arange(600), leak).statistics
        assert found["shift"].value == pytest.approx(strength)
        covered += found["checked"].low <= 1 <= found["checked"].high
        values.append(found["checked"].value)
    assert np.mean(values) == pytest.approx(1, abs=0.03) and covered >= 36


def test_the_leak_is_the_coefficient_of_a_weighted_regression():
    rng = np.random.default_rng(0)
    own, others, middle = rng.integers(0, 2, 50).astype(float), rng.normal(size=(50, 2)), rng.normal(size=50)
    taking_part, weights = np.arange(50) < 40, rng.random((3, 50))
    found = leak_of(middle, own, others, taking_part)(weights)
    for one, w in zip(found, weights, strict=True):
        root = np.sqrt(w[:40])[:, None]
        design = np.column_stack([np.ones(40), own[:40], others[:40]])
        expected = np.linalg.lstsq(root * design, root[:, 0] * middle[:40], rcond=None)[0][1]
        assert one == pytest.approx(expected)
