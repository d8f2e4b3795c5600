"""The page: numbers that read well, text that can't break out, no need of what is absent."""

import math

import pytest

from causalcxr.graph import graph_from_dict
from causalcxr.report.page import Report, render
from causalcxr.support.html import interval_text, number_text


def entry(value, low, high, n=10):
    return {"value": value, "low": low, "high": high, "n": n, "definition": "what it is"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.123456, "0.123"),
        (-2.5, "−2.5"),
        (12345.6, "12,346"),
        (1603770, "1,603,770"),
        (2.3e-8, "< 0.001"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.93312, 0.93101, 0.93502), "0.933 [0.931, 0.935]"),
        ((26.93, 26.5, 27.34), "26.9 [26.5, 27.3]"),
        ((-0.0003, -0.0027, 0.0022), "0.000 [−0.003, 0.002]"),
        ((1.0, 1.0, 1.0), "1"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_intervals_have_as_many_decimals_as_they_deserve(numbers, text):
    assert interval_text(entry(*numbers)) == text


def test_text_is_escaped_and_missing_parts_are_left_out():
    graph = graph_from_dict(
        {
            "description": "<script>alert(1)</script>",
            "variables": {"a": {"kind": "binary", "labels": ["no", "yes"]}},
        }
    )
    metrics = {("attributes", "a", "log_likelihood"): entry(-0.5, -0.6, -0.4)}
    page = render(Report("run & <b>", graph, {"Data": "<i>"}, metrics, {}, warnings=["a < b"]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "run &amp; &lt;b&gt;" in page
    assert "a &lt; b" in page
    assert "−0.5 [−0.6, −0.4]" in page
    assert "Race is a label" not in page  # no such variable
    assert ">Counterfactuals<" not in page
    assert "what it is" in page
