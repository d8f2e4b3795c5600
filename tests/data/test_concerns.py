"""Warnings of a cohort: there when they should be, and only then."""

import numpy as np
import pandas as pd
import pytest

from causalcxr.data.concerns import FALSE_ALARM, find_concerns
from causalcxr.data.summary import label_counts, quantiles, split_sizes, spread
from causalcxr.graph import load_graph

CHEST = load_graph("chest_without_race")
SIZES = {"train": 300, "val": 100, "test": 100}


def cohort(**columns) -> pd.DataFrame:
    """500 rows of as many patients in which nothing is of concern, but for the columns given."""
    n = sum(SIZES.values())
    table = pd.DataFrame(
        {
            "row": np.arange(n),
            "path": "",
            "patient_id": [f"p{i}" for i in range(n)],
            "split": np.repeat(list(SIZES), list(SIZES.values())),
            "sex": np.where(np.arange(n) % 2, "male", "female"),
            "age": (20 + np.arange(n) % 50).astype(np.float32),
            "finding": np.where(np.arange(n) % 4, "No Finding", "Pleural Effusion"),
        }
    )
    return table.assign(**columns)


def where(condition, yes, no):
    return np.where(condition(np.arange(500)), yes, no)


@pytest.mark.parametrize(
    ("columns", "concerns"),
    [
        ({}, []),
        ({"sex": where(lambda i: i % 20 == 0, "male", "female")}, []),  # 5 % are not rare
        (
            {"sex": where(lambda i: i % 25 == 0, "male", "female")},
            ["sex is imbalanced: 4 % of the rows (20) are 'male'"],
        ),
        (
            {"sex": where(lambda i: (i < 300) & (i % 7 == 0), "male", "female")},
            [
                "sex is never 'male' in val and test (43 rows in all)",
            ],
        ),
        (
            {"sex": where(lambda i: i % 100 == 7, "male", "female")},
            ["sex is almost constant: 99 % of the rows are 'female'"],
        ),
        ({"finding": "No Finding"}, ["finding is almost constant: 100 % of the rows are 'No Finding'"]),
        (
            {"age": where(lambda i: i % 200 == 0, 31.5, 63.0).astype(np.float32)},
            ["age is almost constant: 99.4 % of the rows are 63 years"],
        ),
        (
            {"age": (60 + np.arange(500) % 3).astype(np.float32)},
            ["age is almost constant: its standard deviation is 0.82, the graph's range 0 to 100 years"],
        ),
        (
            {"finding": where(lambda i: i % where(lambda i: i < 400, 4, 2), "No Finding", "Pleural Effusion")},
            [
                "finding differs between train and test: "
                "'No Finding' is 75 % of the rows of the one, 50 % of the other",
            ],
        ),
        (
            {"age": (20 + np.arange(500) % 50 + where(lambda i: i >= 400, 30, 0)).astype(np.float32)},
            [
                "age differs between train and test: the medians are 44.5 and 74.5 years, "
                "the cumulative shares up to 60 % apart",
                "age differs between val and test: the medians are 44.5 and 74.5 years, "
                "the cumulative shares up to 60 % apart",
            ],
        ),
        (
            {"patient_id": [f"p{i // 4}" for i in range(500)]},
            [
                "val has few patients (25): what is measured on it has wide intervals",
                "test has few patients (25): what is measured on it has wide intervals",
            ],
        ),
        (
            {"patient_id": [f"p{i % 499}" for i in range(500)]},
            ["1 patient is in two splits: some test rows are no new people"],
        ),
        (
            {"patient_id": [f"p{i % 497}" for i in range(500)]},
            ["3 patients are in two splits: some test rows are no new people"],
        ),
    ],
)
def test_what_is_said_of_a_cohort(columns, concerns):
    assert find_concerns(CHEST, cohort(**columns), {}) == concerns


def test_many_rejected_rows():
    assert find_concerns(CHEST, cohort(), {"other value": 300, "broken image": 200}) == []
    assert find_concerns(CHEST, cohort(), {"broken image": 201, "other value": 300}) == [
        "50 % of the rows read are rejected, most as 'other value' (300); rejected.csv lists them"
    ]


def test_splits_drawn_from_one_law_are_seldom_said_to_differ():
    """Expected are at most 60 tries x 3 attributes x 3 pairs x .001 = .54 alarms, more than 4 in 3 of 10,000 runs.

    Splits of 30 patients, so that a distance of .1 is no hurdle: without the bound of chance there are hundreds.
    """
    random, alarms = np.random.default_rng(0), 0
    split = np.repeat(["train", "val", "test"], 30)
    for _ in range(60):
        table = pd.DataFrame(
            {
                "patient_id": [f"p{i}" for i in range(90)],
                "split": split,
                "sex": np.where(random.random(90) < 0.5, "male", "female"),
                "age": random.uniform(20, 80, 90).astype(np.float32),
                "finding": np.where(random.random(90) < 0.5, "No Finding", "Pleural Effusion"),
            }
        )
        alarms += sum("differs" in concern for concern in find_concerns(CHEST, table, {}))
    assert FALSE_ALARM == 0.001 and alarms <= 4


def test_counts_and_quantiles():
    table = cohort()
    assert split_sizes(table) == {"train": (300, 300), "val": (100, 100), "test": (100, 100), "all": (500, 500)}
    assert label_counts(CHEST["finding"], table) == {
        "No Finding": {"train": 225, "val": 75, "test": 75, "all": 375},
        "Pleural Effusion": {"train": 75, "val": 25, "test": 25, "all": 125},
    }
    ages = quantiles(CHEST["age"], table)
    assert ages["val"] == {"lowest": 20, "5 %": pytest.approx(22), "25 %": 32, "median": 44.5, "75 %": 57} | {
        "95 %": pytest.approx(67),
        "highest": 69,
        "mean": 44.5,
    }


def test_a_spread_shows_every_combination():
    table = cohort().iloc[::-1]
    chosen = table.iloc[spread(CHEST, table, 8)]
    combinations = list(zip(chosen["sex"], chosen["finding"], strict=True))
    # Effusions are in every 4th row, so none of them are male.
    assert (
        combinations
        == [("female", "No Finding")] * 3 + [("female", "Pleural Effusion")] * 3 + [("male", "No Finding")] * 2
    )
    assert chosen["age"].iloc[:3].is_monotonic_increasing and np.ptp(chosen["age"].iloc[:3]) > 25
    assert sorted(spread(CHEST, table.head(5), 8)) == [0, 1, 2, 3, 4]
    assert len(set(spread(CHEST, table, 2))) == 2
