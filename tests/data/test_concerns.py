"""Warnings of a cohort: there when they should be, and only then."""

import numpy as np
import pandas as pd
import pytest

from causalcxr.data.concerns import FALSE_ALARM, balance, find_concerns, find_gaps
from causalcxr.data.summary import BySplit, label_counts, quantiles, spread
from causalcxr.graph import graph_from_dict, load_graph

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
    assert find_concerns(CHEST, BySplit(cohort(**columns)), {}) == concerns


def test_many_rejected_rows():
    assert find_concerns(CHEST, BySplit(cohort()), {"other value": 300, "broken image": 200}) == []
    assert find_concerns(CHEST, BySplit(cohort()), {"broken image": 201, "other value": 300}) == [
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
        alarms += sum("differs" in concern for concern in find_concerns(CHEST, BySplit(table), {}))
    assert FALSE_ALARM == 0.001 and alarms <= 4


def test_counts_and_quantiles():
    table = cohort()
    parts = BySplit(table)
    assert parts.sizes == {"train": (300, 300), "val": (100, 100), "test": (100, 100), "all": (500, 500)}
    assert label_counts(CHEST["finding"], parts) == {
        "No Finding": {"train": 225, "val": 75, "test": 75, "all": 375},
        "Pleural Effusion": {"train": 75, "val": 25, "test": 25, "all": 125},
    }
    ages = quantiles(CHEST["age"], parts)
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


def people(cells: dict[tuple[str, int, str], int], split: str = "train", each: int = 1) -> pd.DataFrame:
    """So many patients of each sex, age and finding, with so many rows each."""
    rows = [cell for cell, n in cells.items() for _ in range(n * each)]
    sexes, ages, findings = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "patient_id": [f"{split}{i // each}" for i in range(len(rows))],
            "split": split,
            "sex": sexes,
            "age": np.array(ages, np.float32),
            "finding": findings,
        }
    )


def every_cell(n: int, ages=(25, 35)) -> dict[tuple[str, int, str], int]:
    findings = ("No Finding", "Pleural Effusion")
    return {(sex, age, finding): n for sex in ("female", "male") for age in ages for finding in findings}


def test_no_gap_where_every_combination_has_people():
    assert find_gaps(CHEST, BySplit(people(every_cell(5)))) == []


def test_combinations_with_next_to_nobody_are_named_the_worst_first():
    cells = every_cell(40, (25, 39, 61))  # 39 is in the decade of 30; nobody of 40 to 59 at all
    cells |= {("male", 39, "Pleural Effusion"): 1, ("female", 61, "No Finding"): 0}
    table = pd.concat([people(cells), people({("female", 61, "No Finding"): 9}, split="test")])
    (gap,) = find_gaps(CHEST, BySplit(table))
    assert gap.startswith("10 of 20 combinations of sex, age, finding have fewer than 5 patients in train (9 have")
    worst = gap.split("Worst: ")[1].split("; ")
    assert worst[:2] == [
        "sex female, age 60 to 69, finding No Finding (nobody)",
        "sex male, age 30 to 39, finding Pleural Effusion (1 patient)",
    ]
    assert "\n" not in gap


def test_more_combinations_than_can_be_counted():
    names = [f"v{i}" for i in range(40)]
    graph = graph_from_dict({"variables": {name: {"kind": "binary", "labels": ["0", "1"]} for name in names}})
    table = pd.DataFrame({name: ["0", "1"] * 5 for name in names})
    table = table.assign(patient_id=[f"p{i}" for i in range(10)], split="train")
    (gap,) = find_gaps(graph, BySplit(table))
    assert gap.startswith("1.1e+12 combinations of v0, ")


def test_rows_of_one_patient_count_once():
    assert find_gaps(CHEST, BySplit(people(every_cell(4), each=3)))[0].startswith("8 of 8 combinations")


def test_the_edge_of_next_to_nobody():
    cells = every_cell(5) | {("male", 35, "No Finding"): 4}
    assert find_gaps(CHEST, BySplit(people(cells))) == [
        "1 of 8 combinations of sex, age, finding have fewer than 5 patients in train (0 have none); "
        "what a model says there is extrapolated. Worst: sex male, age 30 to 39, finding No Finding (4 patients)"
    ]


def test_numbers_without_years_count_by_thirds():
    graph = graph_from_dict(
        {
            "variables": {
                "digit": {"kind": "binary", "labels": ["0", "1"]},
                "dose": {"kind": "continuous", "range": [0, 100]},
            }
        }
    )
    dose = np.tile(np.linspace(0, 90, 30), 2)
    table = pd.DataFrame({"digit": np.repeat(["0", "1"], 30), "dose": dose.astype(np.float32), "split": "train"})
    table["patient_id"] = [f"p{i}" for i in range(60)]
    assert find_gaps(graph, BySplit(table)) == []
    table = table[(table["digit"] == "0") | (table["dose"] < 58)]
    (gap,) = find_gaps(graph, BySplit(table))
    assert gap.startswith("1 of 6 combinations") and "digit 1, dose" in gap
    constant = table.assign(dose=np.float32(3))
    assert find_gaps(graph, BySplit(constant)) == []


def test_what_the_split_balances():
    assert balance(CHEST, BySplit(cohort())) == {"sex": True, "age": True, "finding": True}
    older = (20 + np.arange(500) % 50 + where(lambda i: i >= 400, 30, 0)).astype(np.float32)
    assert balance(CHEST, BySplit(cohort(age=older))) == {"sex": True, "age": False, "finding": True}
