"""Bootstrap intervals against known answers, and their coverage on clustered data."""

import numpy as np
import pytest

from causalcxr.metrics.intervals import mean_interval, median_interval, ratio_interval

SIMULATIONS, CLUSTERS = 300, 80


def clustered(generator):
    """Values with mean 0, standard deviation 1 between patients and .5 within, 1 to 7 images a patient."""
    patients = np.repeat(np.arange(CLUSTERS), generator.integers(1, 8, CLUSTERS))
    return generator.normal(size=CLUSTERS)[patients] + 0.5 * generator.normal(size=len(patients)), patients


def coverage(interval):
    hits = 0
    for seed in range(SIMULATIONS):
        found = interval(*clustered(np.random.default_rng(seed)), seed)
        hits += found.low <= 0 <= found.high
    return hits / SIMULATIONS


def test_interval_of_clustered_data_covers_at_the_nominal_rate():
    """Four standard errors of 300 simulations: .050. With 80 patients percentile intervals may lose .01 to .02."""
    found = coverage(lambda values, patients, seed: mean_interval(values, patients, 300, seed))
    assert 0.95 - 0.02 - 0.050 < found < 0.95 + 0.050


def test_interval_that_ignores_the_patients_covers_too_rarely():
    """Expected about .66; below .85 with more than 7 standard errors to spare."""
    found = coverage(lambda values, patients, seed: mean_interval(values, np.arange(len(values)), 300, seed))
    assert found < 0.85


def test_width_is_that_of_the_normal_approximation():
    """1,000 resamples know a quantile to about 3 % of the standard error; 15 % is 5 times that."""
    values = np.random.default_rng(0).normal(size=2000)
    found = mean_interval(values, np.arange(2000))
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 2000**0.5, rel=0.15)
    assert found.n == 2000


def test_ratio_is_of_the_sums():
    above, below = np.array([1.0, 3.0, 8.0]), np.array([1.0, 1.0, 2.0])
    found = ratio_interval(above, below, ["a", "b", "c"])
    assert found.value == 3.0
    assert 1.0 <= found.low < 3.0 < found.high <= 4.0


def test_constant_ratio_has_no_width():
    below = np.random.default_rng(1).uniform(1, 2, 50)
    found = ratio_interval(0.5 * below, below, np.arange(50))
    assert (found.low, found.high) == pytest.approx((0.5, 0.5), abs=1e-12)


def test_median_against_numpy_and_its_interval_against_order_statistics():
    values = np.random.default_rng(2).normal(size=401)
    found = median_interval(values, np.arange(401))
    assert found.value == np.median(values)
    ordered = np.sort(values)  # binomial interval: ranks 200 -+ 19.6, three ranks of leeway on either side
    assert ordered[177] <= found.low <= ordered[184]
    assert ordered[216] <= found.high <= ordered[223]


def test_rows_without_a_value_are_left_out():
    for interval in (mean_interval, median_interval):
        found = interval([1.0, np.nan, 3.0, 3.0], ["a", "b", "c", "d"])
        assert found.n == 3
        assert interval([np.nan], ["a"]).n == 0
        assert np.isnan(interval([np.nan], ["a"]).value)
    assert mean_interval([1.0, np.nan, 4.0], ["a", "b", "c"]).value == 2.5


def test_one_patient_has_no_spread():
    found = mean_interval([1.0, 2.0], ["a", "a"])
    assert (found.low, found.value, found.high) == (1.5, 1.5, 1.5)


def test_same_seed_same_interval_and_blocks_change_nothing(monkeypatch):
    values, patients = clustered(np.random.default_rng(3))
    whole = median_interval(values, patients, seed=5)
    assert median_interval(values, patients, seed=5) == whole
    assert median_interval(values, patients, seed=6) != whole
    monkeypatch.setattr("causalcxr.metrics.intervals.NUMBERS_AT_ONCE", 7 * len(values))
    assert median_interval(values, patients, seed=5) == whole


def test_a_patient_too_few_is_refused():
    with pytest.raises(ValueError, match="one patient per row"):
        mean_interval([1.0, 2.0], ["a"])
