"""Group gaps against counts done by hand, and their intervals against simulation."""

import numpy as np
import pytest

from causalcxr.audit import group_gaps
from causalcxr.support.errors import DataError


def cohort(seed: int, n: int, miss: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions of two groups with equal prevalence; of women a share `miss` of the hits is lost."""
    rng = np.random.default_rng(seed)
    a, finding = rng.choice(["female", "male"], n), rng.random(n) < 0.4
    flagged = rng.random(n) < np.where(finding, 0.8 - miss * (a == "female"), 0.1)
    return flagged, finding, a


def test_gaps_are_differences_of_rates():
    flagged, finding, a = cohort(0, 400, miss=0.3)

    def rate(group: str, among: np.ndarray) -> float:
        return float(flagged[(a == group) & among].mean())

    found = group_gaps(flagged, finding, a, "female", "male")
    parts = {"true_positive_rate": finding, "false_positive_rate": ~finding, "demographic_parity": finding | True}
    for name, among in parts.items():
        assert found[name].value == pytest.approx(rate("female", among) - rate("male", among))
    odds = max(abs(found["true_positive_rate"].value), abs(found["false_positive_rate"].value))
    assert found["equalised_odds"].value == pytest.approx(odds)


def test_intervals_hold_the_true_gap():
    """95 % of them, so 8 or more misses of 60 have a chance of 0.01."""
    found = [group_gaps(*cohort(seed, 600, miss=0.2), "female", "male", resamples=200) for seed in range(60)]
    for name, true in (("true_positive_rate", -0.2), ("false_positive_rate", 0.0), ("demographic_parity", -0.08)):
        assert sum(not one[name].low <= true <= one[name].high for one in found) < 8


def test_equal_groups_have_equalised_odds_of_nothing():
    """The difference is an absolute value: its interval reaches 0 where there is nothing."""
    found = [group_gaps(*cohort(seed, 600), "female", "male", resamples=200) for seed in range(20)]
    assert sum(one["equalised_odds"].low > 0 for one in found) < 4


def test_rows_of_a_patient_widen_the_interval():
    flagged, finding, a = (np.repeat(one, 5) for one in cohort(0, 200))
    rows = group_gaps(flagged, finding, a, "female", "male")["true_positive_rate"]
    people = group_gaps(flagged, finding, a, "female", "male", np.repeat(np.arange(200), 5))["true_positive_rate"]
    assert people.high - people.low > 1.8 * (rows.high - rows.low)  # sqrt(5) = 2.2


def test_groups_without_an_answer_are_named():
    flagged, finding, a = cohort(0, 100)
    with pytest.raises(DataError, match="group 'other' has 0 patients; expected at least 30"):
        group_gaps(flagged, finding, a, "female", "other")
    with pytest.raises(DataError, match="group 'female' has none with the finding"):
        group_gaps(flagged, finding & (a == "male"), a, "female", "male")


def test_what_is_no_decision_is_refused():
    flagged, finding, a = cohort(0, 100)
    for wrong in (np.linspace(0, 1, 100), np.full(100, np.nan), np.full(100, "yes"), np.where(flagged, 1, -1)):
        with pytest.raises(
            DataError, match="flagged is no decision; expected one row of True and False, or 0 and 1"
        ):
            group_gaps(wrong, finding, a, "female", "male")
    with pytest.raises(DataError, match="have 100, 99, 100 and 100 rows"):
        group_gaps(flagged, finding[:99], a, "female", "male")


def test_equalised_odds_reach_as_far_as_the_gaps_that_they_are_of():
    found = group_gaps(*cohort(1, 200), "female", "male")
    parts = [found[name] for name in ("true_positive_rate", "false_positive_rate")]
    assert found["equalised_odds"].high >= max(min(abs(one.low), abs(one.high)) for one in parts)
