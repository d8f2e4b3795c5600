"""Predicted shares against observed ones: right for the true mechanism, wrong where a mechanism is bent."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from causalcxr.check.calibration import check_calibration, integral_transform
from causalcxr.graph import Variable, graph_from_dict
from causalcxr.mechanisms.spline import SplineMechanism
from causalcxr.metrics.p_values import holm
from tests.check.worlds import cohort_of
from tests.models import tiny_scm

GRAPH = graph_from_dict(
    {
        "variables": {
            "sex": {"kind": "binary", "labels": ["female", "male"]},
            "age": {"kind": "continuous", "range": [0, 100], "unit": "years"},
            "race": {"kind": "categorical", "labels": ["white", "asian", "black"], "parents": ["age"]},
            "dose": {"kind": "continuous", "range": [0, 10], "parents": ["sex", "age"]},
        }
    }
)
REPEATS = 200
KNOWN = math.inf  # rows that the mechanisms were fitted to


def drawn(scm, n, seed, patients=None):
    """The held-out rows of n rows from the model itself, which is then the truth."""
    values = {name: value.numpy() for name, value in scm.sample(n, seed=seed).items()}
    return cohort_of(scm.graph, values, patients).split("test")


def largest_distance(transformed):
    """Kolmogorov's distance from the uniform law."""
    steps = np.arange(len(transformed) + 1) / len(transformed)
    ordered = np.sort(transformed)
    return max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())


@pytest.mark.parametrize("rounded", [False, True])
def test_the_integral_transform_of_the_true_law_is_uniform(rounded):
    scm, n = tiny_scm(GRAPH), 20_000
    rows = scm.sample(n, seed=0)
    if rounded:
        rows["age"] = 5 * (rows["age"] / 5).round()
    transformed = integral_transform(scm.mechanism("age"), rows)
    # Dvoretzky, Kiefer, Wolfowitz, Massart: larger in at most 2 exp(-2 * 1.95^2) = .1 % of draws
    assert largest_distance(transformed) < 1.95 / np.sqrt(n)
    if rounded:  # without drawing within the five years, the law's steps would show
        plain = torch.special.ndtr(scm.mechanism("age").abduct(rows["age"], rows)).numpy()
        assert largest_distance(plain) > 2 * 1.95 / np.sqrt(n)


def test_the_integral_transform_of_an_untrained_root():
    # an identity spline on a logit with centre 0 and spread 1: value = 100 sigmoid(u), so 73.1 is one deviation up
    mechanism = SplineMechanism(Variable("age", "continuous", range=(0.0, 100.0)), ())
    values = torch.tensor([100 / (1 + math.exp(-u)) for u in (-2.0, -1.0, 0.0, 1.0, 2.0)])
    transformed = integral_transform(mechanism, {"age": values})
    middles = torch.special.ndtr(torch.logit((values[1:] + values[:-1]) / 200)).numpy()
    assert (transformed[:-1] <= middles).all() and (transformed[1:] >= middles).all()


def test_the_truth_is_contradicted_at_most_at_the_nominal_rate():
    # Groups overlap and are corrected as if they didn't, so the rate is below 5 %. 18 of 200 or fewer: a binomial
    # count at 5 % exceeds it in .6 % of cases.
    scm, lowest = tiny_scm(GRAPH), []
    for seed in range(REPEATS):
        held_out = drawn(scm, 2000, seed)
        fits = [check_calibration(scm, name, held_out, KNOWN, tolerance=0.0) for name in ("race", "dose")]
        lowest.append(min(holm([fit.p for fit in fits])))
    assert sum(p <= 0.05 for p in lowest) <= 18
    # Nor is every value 1: at 4 % below 0.1, none of 200 has a chance of 3 in 10,000.
    assert min(lowest) < 0.1


def test_a_bent_label_is_found_in_the_group_where_it_is_bent():
    truth = tiny_scm(GRAPH, seed=1)
    held_out = drawn(truth, 20_000, 0)
    assert check_calibration(truth, "race", held_out, KNOWN).p == 1.0
    bent = tiny_scm(GRAPH, seed=1)
    bent.mechanism("race").conditioner.bias[2] += 0.5
    fit = check_calibration(bent, "race", held_out, KNOWN)
    assert fit.p < 1e-6 and fit.event == "black" and fit.observed < fit.predicted - 0.05


def test_a_bent_number_is_found_in_the_group_where_it_is_bent():
    truth, bent = tiny_scm(GRAPH, seed=1), tiny_scm(GRAPH, seed=1)
    held_out = drawn(truth, 20_000, 0)
    bent.mechanism("dose").conditioner.linear.weight[0, 1] += 0.8  # the location, for men only
    fit = check_calibration(bent, "dose", held_out, KNOWN)
    assert fit.p < 1e-6 and fit.group == "rows where sex is male"
    assert check_calibration(truth, "dose", held_out, KNOWN).p == 1.0


def test_a_gap_within_the_tolerance_is_none():
    truth = tiny_scm(GRAPH)
    held_out = drawn(truth, 200_000, 0)
    bent = tiny_scm(GRAPH)
    share = float(truth.mechanism("sex").log_prob(torch.ones(1), {}).exp())
    now, wanted = (math.log(s / (1 - s)) for s in (share, share + 0.015))
    bent.mechanism("sex").conditioner.bias[1] += wanted - now
    assert check_calibration(bent, "sex", held_out, KNOWN, tolerance=0.0).p < 1e-6
    fit = check_calibration(bent, "sex", held_out, KNOWN)
    assert fit.p == 1.0 and fit.predicted - fit.observed == pytest.approx(
        0.015, abs=0.006
    )  # three standard errors


def test_rows_of_one_patient_and_few_training_rows_widen_the_error():
    truth = tiny_scm(GRAPH)
    bent = tiny_scm(GRAPH)
    bent.mechanism("sex").conditioner.bias[1] += 0.6
    values = {name: value.numpy() for name, value in truth.sample(2000, seed=0).items()}
    ten_each = {name: np.repeat(value, 10) for name, value in values.items()}
    patients = np.repeat(np.arange(2000), 10)
    alone = check_calibration(bent, "sex", cohort_of(GRAPH, values).split("test"), KNOWN)
    together = check_calibration(bent, "sex", cohort_of(GRAPH, ten_each, patients).split("test"), KNOWN)
    assert together.p == pytest.approx(alone.p, rel=1e-3)
    few = check_calibration(bent, "sex", cohort_of(GRAPH, values).split("test"), 600)  # as many as are held out
    z_alone, z_few = (NormalDist().inv_cdf(fit.p / 2) for fit in (alone, few))
    assert z_few == pytest.approx(z_alone / math.sqrt(2), rel=1e-6)


def test_without_enough_rows_nothing_is_said():
    scm = tiny_scm(GRAPH)
    fit = check_calibration(scm, "race", drawn(scm, 100, 0), KNOWN)
    assert (fit.comparisons, fit.p) == (0, 1.0)
