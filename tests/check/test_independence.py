"""The test of independence: its level on data that are independent, its power on data that are not."""

import numpy as np
import pytest

from causalcxr.check.claims import Claim, implied_independences
from causalcxr.check.independence import check_independences
from causalcxr.graph import graph_from_dict
from causalcxr.metrics.p_values import chi_square_tail, holm
from causalcxr.support.errors import DataError
from tests.check.worlds import draw, world

NUMBER = {"kind": "continuous", "range": [-1000, 1000]}
BINARY = {"kind": "binary", "labels": ["no", "yes"]}
MANY = {"kind": "categorical", "labels": [str(i) for i in range(120)]}
PLAIN = graph_from_dict(
    {"variables": {"x": NUMBER, "y": NUMBER, "z": NUMBER, "w": NUMBER, "b": BINARY, "m": MANY, "k": MANY}}
)
REPEATS = 200
# Of 200 repeats, 5 % of which complain: a binomial count outside this range comes by in .8 % of cases. Seeds are
# fixed, so that a test which passes passes always.
COMPLAINTS = range(3, 19)


def result_of(earlier="x", later="y", given=(), patients=None, **columns):
    n = len(columns["x"])
    claim = Claim(earlier, later, given)
    return check_independences(PLAIN, columns, np.arange(n) if patients is None else patients, [claim])[0]


def test_tail_of_the_chi_square_law():
    # table of critical values at .05 and .001
    for statistic, degrees, p in [(3.841459, 1, 0.05), (16.918978, 9, 0.05), (27.877165, 9, 0.001)]:
        assert chi_square_tail(statistic, degrees) == pytest.approx(p, rel=1e-5)


def test_a_graph_that_is_right_is_contradicted_at_the_nominal_rate():
    graph, complaints = world(), 0
    claims = implied_independences(graph)  # ten, given nothing, one number, or two variables of two kinds
    small = np.zeros(len(claims))
    for seed in range(REPEATS):
        p = [one.p for one in check_independences(graph, draw(1000, seed), np.arange(1000), claims)]
        complaints += min(holm(p)) <= 0.05
        small += np.array(p) <= 0.1
    assert complaints in COMPLAINTS
    # each claim by itself, at level .1: 20 +- 4 standard deviations of 4.2, all ten within in 99.9 % of cases
    assert (small > 3).all() and (small < 37).all()


def test_rows_of_one_patient_count_as_one_where_they_agree():
    # 100 patients with 10 rows each; sex is the patient's, age nearly so: as independent rows they would complain
    complaints = {"by patient": 0, "by row": 0}
    for seed in range(REPEATS):
        random = np.random.default_rng(seed)
        patients = np.repeat(np.arange(150), 10)
        columns = {"b": random.integers(2, size=150)[patients]}
        columns["x"] = random.normal(size=150)[patients] + 0.1 * random.normal(size=1500)
        complaints["by patient"] += result_of("x", "b", patients=patients, **columns).p <= 0.05
        complaints["by row"] += result_of("x", "b", **columns).p <= 0.05
    assert complaints["by patient"] in COMPLAINTS
    assert complaints["by row"] > REPEATS / 2


def shapes(n=2000, seed=0):
    """y that depends on x without a correlation."""
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=n), random.normal(size=n)
    angle = random.uniform(0, 2 * np.pi, size=n)
    return {
        "square": (x, x**2 + noise),
        "spread": (x, x * noise),
        "circle": (np.cos(angle) + 0.1 * x, np.sin(angle) + 0.1 * noise),
        "middle": (x, np.where(np.abs(x) < 0.5, noise, 2 * noise)),
    }


@pytest.mark.parametrize("shape", ["square", "spread", "circle", "middle"])
def test_a_dependence_without_correlation_is_found(shape):
    x, y = shapes()[shape]
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1
    assert result_of(x=x, y=y).p < 1e-10
    assert result_of(x=x, y=np.random.default_rng(1).permutation(y)).p > 0.01


def test_a_common_cause_is_taken_away_and_a_common_effect_opens():
    random = np.random.default_rng(0)
    n = 4000
    # fork: x <- z -> y, bent both ways
    z = random.normal(size=n)
    fork = {"z": z, "x": np.sin(2 * z) + 0.5 * random.normal(size=n), "y": z**2 + random.gamma(1, size=n)}
    assert result_of(**fork).p < 1e-10
    assert result_of(given=("z",), **fork).p > 0.01
    # collider: x -> b <- y
    x, y = random.normal(size=n), random.normal(size=n)
    collider = {"x": x, "y": y, "b": (x + y + 0.3 * random.normal(size=n) > 0).astype(np.int64)}
    assert result_of(**collider).p > 0.01
    assert result_of(given=("b",), **collider).p < 1e-10


def test_neither_units_nor_tails_matter():
    x, y = shapes()["square"]
    plain, bent = result_of(x=x, y=y), result_of(x=np.exp(3 * x), y=-np.arctan(y))
    # ranks are the same but for a mirror image, which changes signs only
    assert bent.statistic == pytest.approx(plain.statistic, rel=1e-9)
    assert bent.strength == pytest.approx(plain.strength, rel=1e-9)


def test_strength_is_a_correlation_after_regression():
    random = np.random.default_rng(0)
    n, rho = 100_000, 0.5
    x = random.normal(size=n)
    y = rho * x + np.sqrt(1 - rho**2) * random.normal(size=n)
    # rank correlation of a normal pair: 6 / pi arcsin(rho / 2) = .483; its standard error here is .003
    assert result_of(x=x, y=y).strength == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.012)


def test_what_is_determined_leaves_nothing_to_test():
    b = np.arange(1000) % 2
    columns = {"x": b.astype(float), "y": np.random.default_rng(0).normal(size=1000), "b": b}
    one = result_of(given=("b",), **columns)
    assert (one.p, one.degrees, one.strength) == (1.0, 0, 0.0)


def test_too_few_rows_is_one_line():
    random = np.random.default_rng(0)
    columns = {"x": random.normal(size=110), "y": random.normal(size=110)}
    columns |= {"z": random.normal(size=110), "w": random.normal(size=110), "m": np.arange(110) % 3}
    assert result_of(given=("z", "w"), **columns).degrees == 9
    # a constant, four polynomials of each number, and two of three labels: 11 columns of 10 rows each
    with pytest.raises(DataError, match="too few rows: conditioning on z, w, m takes at least 110, there are 109"):
        result_of(given=("z", "w", "m"), **{name: column[:109] for name, column in columns.items()})


def test_too_many_labels_is_one_line():
    random = np.random.default_rng(0)
    n = 20_000
    columns = {name: random.normal(size=n) for name in "xy"} | {
        name: random.integers(120, size=n) for name in "mk"
    }
    assert result_of(given=("m",), **columns).degrees == 9
    columns |= {"z": random.normal(size=n)}
    with pytest.raises(DataError, match="conditioning on m, k, z takes 251 columns, more than 250; join labels"):
        result_of(given=("m", "k", "z"), **columns)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
