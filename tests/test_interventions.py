"""Interventions as text, as chosen from a graph, and as drawn row by row."""

import pytest
import torch

from causalcxr.graph import load_graph
from causalcxr.interventions import choose_interventions, draw_other_values, parse_intervention
from causalcxr.support.errors import GraphError
from causalcxr.values import describe

CHEST, MORPHO = load_graph("chest"), load_graph("morphomnist")


def test_text_to_intervention_and_back():
    do = parse_intervention(CHEST, "age=80, finding=Pleural Effusion")
    assert do == {"age": 80.0, "finding": "Pleural Effusion"}
    assert describe(CHEST, do) == "age = 80 years, finding = Pleural Effusion"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "expected NAME=VALUE, each name once") for text in ("age", "age=", "age=80,age=70", "")),
        ("=80", "no variable ''"),
        ("age=old", "'age': expected a number in years, got 'old'"),
    ],
)
def test_what_is_not_an_intervention_is_refused(text, message):
    with pytest.raises(GraphError, match=message):
        parse_intervention(CHEST, text)


@pytest.mark.parametrize(("text", "hint"), [("agee=80", "age"), ("sex=femal", "female"), ("age=180", "18, 100")])
def test_what_the_graph_does_not_allow_is_refused(text, hint):
    with pytest.raises(GraphError, match=hint):
        parse_intervention(CHEST, text)


def test_choice_has_every_label_and_readable_quantiles():
    age = torch.linspace(20, 90, 701)  # quantiles 27 and 83
    chosen = choose_interventions(CHEST, {"age": age})
    assert [do["sex"] for do in chosen if "sex" in do] == ["female", "male"]
    assert [do["race"] for do in chosen if "race" in do] == ["white", "asian", "black"]
    assert [do["age"] for do in chosen if "age" in do] == [25.0, 85.0]
    assert len(chosen) == 9


def test_choice_spreads_over_many_labels_and_stays_in_range():
    constant = torch.full((10,), 0.5)
    chosen = choose_interventions(MORPHO, {"thickness": constant, "intensity": torch.linspace(64, 255, 100)})
    assert [do["digit"] for do in chosen if "digit" in do] == ["0", "4", "9"]
    assert [do["thickness"] for do in chosen if "thickness" in do] == [0.5]
    assert all(64 <= do["intensity"] <= 255 for do in chosen if "intensity" in do)


def test_drawn_labels_are_uniform_over_the_others():
    """6,000 draws over two labels: a share has standard error .0065; 5 of them, false alarms below 1e-6."""
    batch = {"sex": torch.zeros(6000).long(), "race": torch.ones(6000).long(), "finding": torch.ones(6000).long()}
    batch["age"] = torch.full((6000,), 50.0)
    train = {"age": torch.tensor([30.0, 60.0])}
    drawn = draw_other_values(CHEST, batch, train, seed=0)
    assert drawn["sex"].eq(1).all()
    assert drawn["finding"].eq(0).all()
    assert set(drawn["race"].tolist()) == {0, 2}
    assert drawn["race"].eq(2).double().mean() == pytest.approx(0.5, abs=0.033)
    assert drawn["age"].eq(60).double().mean() == pytest.approx(0.5, abs=0.033)
    again = draw_other_values(CHEST, batch, train, seed=0)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
