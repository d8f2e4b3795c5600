"""From p-values, intervals and gates to a word."""

import math

import pytest

from causalcxr.audit.verdict import Gate, RouteResult, judge

SURE, UNSURE = RouteResult(0.001, (0.05, 0.2)), RouteResult(0.4, (-0.3, 0.4))
SMALL, SILENT = RouteResult(0.5, (-0.01, 0.015)), RouteResult(0.6)


@pytest.mark.parametrize(
    ("generate", "encode", "word"),
    [
        (SURE, RouteResult(0.01), "dependence"),
        (SURE, SILENT, "inconclusive"),
        (UNSURE, RouteResult(0.01), "inconclusive"),
        (SMALL, RouteResult(0.01), "inconclusive"),
        (RouteResult(0.001, (0.005, 0.01)), SILENT, "equivalent"),  # there is an effect, and it does not matter
        (SMALL, SILENT, "equivalent"),
        (UNSURE, SILENT, "inconclusive"),
        (SURE, None, "dependence"),
        (SMALL, None, "equivalent"),
        (None, RouteResult(0.01), "dependence"),
        (None, SILENT, "inconclusive"),
    ],
)
def test_the_word_follows_from_both_routes(generate, encode, word):
    routes = {name: found for name, found in (("generate", generate), ("encode", encode)) if found is not None}
    assert judge({"do(sex)": routes}, {}, {"do(sex)": 0.02})["do(sex)"].word == word


def test_a_significant_effect_inside_the_margin_is_still_a_dependence():
    found = judge({"do(sex)": {"generate": RouteResult(0.001, (0.005, 0.01))}}, {}, {"do(sex)": 0.02})["do(sex)"]
    assert found.word == "dependence" and "smaller than the margin of 0.02" in found.reason


def test_p_values_are_corrected_for_the_contrasts_of_a_route():
    contrasts = {f"c{i}": {"generate": RouteResult(p, (0.1, 0.2))} for i, p in enumerate((0.01, 0.04, 0.03))}
    found = judge(contrasts, {}, dict.fromkeys(contrasts, 0.02))
    assert [one.adjusted["generate"] for one in found.values()] == pytest.approx([0.03, 0.06, 0.06])
    assert [one.word for one in found.values()] == ["dependence", "inconclusive", "inconclusive"]


def test_a_gate_that_fails_names_itself():
    gates = [
        Gate("leakage (AUROC)", 0.71, high=0.6),
        Gate("overlap", 0.99, low=0.95),
        Gate("effect", math.nan, 0, 1),
    ]
    found = judge({"do(sex)": {"generate": SURE}}, {"do(sex)": gates}, {"do(sex)": 0.02})["do(sex)"]
    assert found.word == "generator failed"
    assert found.reason == "leakage (AUROC) is 0.71, expected at most 0.6; effect is nan, expected at most 1"


def test_noise_alone_fails_no_gate():
    assert Gate("leakage", 0.63, high=0.6, interval=(0.55, 0.7)).passed
    assert not Gate("leakage", 0.7, high=0.6, interval=(0.62, 0.78)).passed
    assert not Gate("leakage", math.nan, high=0.6, interval=(math.nan, math.nan)).passed
