"""The shortcut index of classifiers whose answer is known.

One follows the group as far as it pays, one is blind to it, one sees nothing else.

finding --> group        log-odds of the severity: 2 e,   e ~ N(+-1, 1)
"""

from statistics import NormalDist

import numpy as np
import pytest

from causalcxr.bias.bayes import group_evidence, informed, optimum
from causalcxr.bias.gaps import Scores, measure
from causalcxr.metrics.intervals import seed_interval

N = 20_000
PHI = NormalDist().cdf


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finding, severity, and the number that decides the group."""
    generator = np.random.default_rng(0)
    finding = generator.random(N) < 0.5
    return finding, np.where(finding, 1, -1) + generator.standard_normal(N), generator.random(N)


def group_of(people: tuple, q: float) -> np.ndarray:
    finding, _, uniform = people
    return uniform < np.where(finding, q, 1 - q)


@pytest.mark.parametrize("q", [0.6, 0.7, 0.8, 0.9])
def test_the_best_classifier_has_index_one(people: tuple, q: float) -> None:
    """Its interval holds 1 and is no wider than 0.5; a pair gap is the closed form, five standard errors."""
    finding, severity, _ = people
    blind = 2 * severity[None]
    aware = informed(blind, q)
    group = group_of(people, q)
    found = measure(Scores(aware[..., 0], aware[..., 1], blind), finding, group, np.arange(N), q).statistics
    assert found["index"].low < 1 < found["index"].high < found["index"].low + 0.5
    assert found["accuracy"].low < optimum(q).accuracy < found["accuracy"].high
    assert found["attainable_index"].value == pytest.approx(1, abs=1e-9)
    shift = group_evidence(q) / 2
    assert found["pair_gap"].value == pytest.approx(PHI(1 + shift) - PHI(1 - shift), abs=5 * 0.5 / (N / 2) ** 0.5)
    assert found["pair_shift"].value == pytest.approx(4 * shift, abs=1e-9)


def test_one_that_is_blind_has_index_zero(people: tuple) -> None:
    """Exactly, for it is its own twin."""
    finding, severity, _ = people
    blind = 2 * severity[None]
    found = measure(Scores(blind, blind, blind), finding, group_of(people, 0.8), np.arange(N), 0.8).statistics
    assert [found[name].value for name in ("gap", "index", "pair_gap", "pair_shift")] == [0, 0, 0, 0]
    assert found["twin_gap"].low < 0 < found["twin_gap"].high
    assert found["twin_accuracy"].low < PHI(1) < found["twin_accuracy"].high


def test_one_that_sees_the_group_alone_follows_it_more_than_pays(people: tuple) -> None:
    finding, severity, _ = people
    always = np.ones((1, N))
    scores = Scores(-always, always, 2 * severity[None])
    measured = measure(scores, finding, group_of(people, 0.7), np.arange(N), 0.7)
    found = measured.statistics
    twin = found["twin_gap"].value
    assert found["index"].value == pytest.approx((1 - twin) / optimum(0.7).gap, abs=1e-9)
    assert found["accuracy"].value == pytest.approx(0.7, abs=5 * 0.46 / N**0.5)
    assert measured.auroc == pytest.approx(0.7, abs=0.02)


def test_nothing_pays_where_the_groups_are_alike(people: tuple) -> None:
    finding, severity, _ = people
    blind = 2 * severity[None]
    found = measure(Scores(blind, blind, blind), finding, group_of(people, 0.5), np.arange(N), 0.5).statistics
    assert "index" not in found and "attainable_index" not in found
    assert found["gap"].value == 0


def test_seeds_that_differ_widen_the_interval(people: tuple) -> None:
    """Two networks with offsets +-0.3: to the interval over patients comes Student's over the seeds."""
    finding, severity, _ = people
    blind, group = 2 * severity[None], group_of(people, 0.8)

    def scores(offsets: list[float]) -> Scores:
        under_b = np.concatenate([blind + offset for offset in offsets])
        return Scores(np.repeat(blind, len(offsets), 0), under_b, np.repeat(blind, len(offsets), 0))

    one = measure(scores([0.0, 0.0]), finding, group, np.arange(N), 0.8)
    two = measure(scores([-0.3, 0.3]), finding, group, np.arange(N), 0.8)
    seeds = two.by_seed["pair_shift"]
    assert seeds == pytest.approx([-0.3, 0.3])
    assert two.statistics["pair_shift"].high == pytest.approx(12.706 * 0.6 / 2**0.5 / 2**0.5, rel=1e-4)
    assert one.statistics["pair_shift"].high == 0


def test_students_interval() -> None:
    """By hand: mean 2, deviation 1, t(0.975, 2) = 4.303."""
    found = seed_interval([1.0, 2.0, 3.0])
    assert (found.value, found.high) == pytest.approx((2.0, 2 + 4.303 / 3**0.5))
    assert np.isnan(seed_interval([1.0]).high)


def test_patients_are_drawn_whole(people: tuple) -> None:
    """Every film twice, under its patient: the interval does not get narrower (the same resamples)."""
    finding, severity, _ = people
    half = slice(0, 4000)
    group = group_of(people, 0.8)[half]
    blind = 2 * severity[None, half]
    aware = informed(blind, 0.8)
    single = Scores(aware[..., 0], aware[..., 1], blind)
    twice = Scores(*(np.repeat(part, 2, axis=1) for part in (single.under_a, single.under_b, single.twin)))
    widths = []
    for scores, repeat, patients in ((single, 1, np.arange(4000)), (twice, 2, np.repeat(np.arange(4000), 2))):
        of = np.repeat(finding[half], repeat), np.repeat(group, repeat)
        found = measure(scores, *of, patients, 0.8).statistics["gap"]
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.02)


def test_a_rate_of_nobody_is_unknown_and_breaks_nothing(people: tuple) -> None:
    finding, severity, _ = people
    blind = np.repeat(2 * severity[None], 2, axis=0)
    found = measure(
        Scores(blind, blind, blind), finding, finding, np.arange(N), 0.8
    )  # B has the finding, A has not
    assert np.isnan(found.statistics["gap"].value) and np.isnan(found.statistics["gap"].high)
    assert found.statistics["pair_gap"].value == 0
