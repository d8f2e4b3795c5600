"""The tests of an audit on arrays whose dependence is known."""

import numpy as np
import pytest

from causalcxr.audit import as_published, gcm, pcm
from causalcxr.support.errors import DataError

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def world(seed: int, n: int, noise: float = 1.0, effect: float = 0.0) -> Arrays:
    """Scores that depend on Z, in part not linearly; an attribute that depends on Z, too; and what it adds.

    With an effect, the attribute has a slope in Z that is 0 on average over it.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 8))
    a = (rng.random(n) < 1 / (1 + np.exp(-z[:, 0]))).astype(int)
    y = z @ np.arange(1, 9) / 10 + 0.5 * np.maximum(z[:, 1], 0) * z[:, 2] + effect * (a - 0.5) * z[:, 3]
    return y + noise * rng.normal(size=n), a, z


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("test", [pcm, gcm])
def test_an_invariant_score_is_rejected_at_the_nominal_rate(test, noise):
    """At a level of 0.05, 10 or more of 60 have a chance of 0.0005."""
    rejected = sum(test(*world(seed, 200, noise)).p < 0.05 for seed in range(60))
    assert rejected < 10


def test_the_published_statistic_rejects_invariant_scores():
    assert sum(as_published(*world(seed, 1000)).p < 0.05 for seed in range(12)) > 3


def test_an_effect_that_averages_out_is_found_by_the_projection_alone():
    found = [(pcm(*world(seed, 1000, effect=0.5)).p, gcm(*world(seed, 1000, effect=0.5)).p) for seed in range(3)]
    assert all(projected < 0.001 for projected, _ in found)
    assert sum(plain > 0.05 for _, plain in found) >= 2


@pytest.mark.parametrize("kind", ["labels", "three labels", "number"])
def test_the_effect_is_the_known_one(kind):
    """Of `0.8 a` with `a` independent of Z it is `0.64 var(a)`; within a fifth at 2,000 rows."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    a = {
        "labels": lambda: rng.integers(0, 2, 2000),
        "three labels": lambda: rng.integers(0, 3, 2000),
        "number": lambda: rng.normal(size=2000),
    }[kind]()
    found = pcm(z.sum(axis=1) + 0.8 * a + rng.normal(size=2000), a, z)
    assert found.p < 1e-6
    assert found.effect == pytest.approx(0.64 * a.var(), rel=0.2)
    permuted = pcm(z.sum(axis=1) + rng.normal(size=2000), a, z)
    assert permuted.p > 0.01 and abs(permuted.effect) < 0.02


def test_rows_of_one_patient_count_as_one():
    """An attribute and a noise of the patient, five films each: only with patients named does the level hold."""

    def p_values(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        patient, z = np.repeat(np.arange(60), 5), rng.normal(size=(300, 3))
        y = z.sum(axis=1) + 2 * rng.normal(size=60)[patient] + 0.1 * rng.normal(size=300)
        a = rng.integers(0, 2, 60)[patient]
        return pcm(y, a, z, groups=patient).p, pcm(y, a, z).p

    named, unnamed = (np.array([p_values(seed) for seed in range(40)]) < 0.05).sum(axis=0)
    assert named < 8 <= unnamed  # 8 or more of 40 have a chance of 0.001 at the level of 0.05
    rows = np.repeat(np.arange(60), 5)
    y, a, z = world(0, 300)
    assert (pcm(y, a, z, groups=rows).rows, pcm(y, a, z, groups=rows).patients) == (300, 60)


def test_the_same_seed_gives_the_same_answer():
    assert pcm(*world(0, 120), seed=4) == pcm(*world(0, 120), seed=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, a, z: (y[:-1], a, z), r"a has 100 rows and y 99; expected one row a score"),
        (lambda y, a, z: (np.where(np.arange(100) < 3, np.nan, y), a, z), "y is not finite in 3 of 100 rows"),
        (lambda y, a, z: (y, a, np.where(z > 2, np.inf, z)), "z is not finite in"),
        (lambda y, a, z: (0 * y, a, z), "y is constant"),
        (lambda y, a, z: (y, 0 * a, z), "a is constant"),
        (lambda y, a, z: (y[:29], a[:29], z[:29]), "29 patients; expected at least 30"),
        (lambda y, a, z: (y, np.arange(100), z), "a has 100 different labels, and at most 20 are taken"),
        (lambda y, a, z: (y, np.c_[a, a], z), "a is 100x2; expected one number a row"),
        (lambda y, a, z: (y, a, z[:, :0]), "z is 100x0; expected one row of numbers for each"),
        (lambda y, a, z: (y, a, np.full((100, 2), "x")), "z has something in it that is no number"),
        (lambda y, a, z: (y, np.where(a == 1, "f", None), z), "a is not finite in"),
        (lambda y, a, z: (3.0, a, z), "y is a single value"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_line(change, message):
    with pytest.raises(DataError, match=message):
        pcm(*change(*world(0, 100)))


def test_missing_patients_and_no_splits_are_refused():
    with pytest.raises(DataError, match="groups is not finite in 1 of 100 rows"):
        pcm(*world(0, 100), groups=np.where(np.arange(100) == 3, np.nan, np.arange(100)))
    with pytest.raises(DataError, match="splits is 0; expected at least 1"):
        pcm(*world(0, 100), splits=0)
