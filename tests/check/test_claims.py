"""What graphs claim about their attributes, written out by hand."""

from causalcxr.check.claims import Claim, edges, implied_independences
from causalcxr.graph import load_graph
from tests.check.worlds import world


def test_a_claim_for_every_missing_edge_and_no_other():
    # sex, race and age are roots; finding <- race, age; dose <- age; stay <- sex, dose
    assert implied_independences(world()) == [
        Claim("sex", "race", ()),
        Claim("sex", "age", ()),
        Claim("race", "age", ()),
        Claim("sex", "finding", ("race", "age")),
        Claim("sex", "dose", ("age",)),
        Claim("race", "dose", ("age",)),
        Claim("finding", "dose", ("age",)),
        Claim("race", "stay", ("sex", "dose")),
        Claim("age", "stay", ("sex", "dose")),
        Claim("finding", "stay", ("sex", "dose")),
    ]


def test_the_image_is_left_out():
    assert implied_independences(load_graph("chest").without_image()) == implied_independences(load_graph("chest"))
    assert Claim("race", "finding", ("age",)) in implied_independences(load_graph("chest"))


def test_without_an_edge_there_is_one_claim_more():
    without = set(implied_independences(world(("race", "finding"))))
    assert Claim("race", "finding", ("age",)) in without
    assert len(without) == len(implied_independences(world())) + 1


def test_an_edge_is_tested_given_the_other_parents():
    assert set(edges(world())) == {
        Claim("race", "finding", ("age",)),
        Claim("age", "finding", ("race",)),
        Claim("age", "dose", ()),
        Claim("sex", "stay", ("dose",)),
        Claim("dose", "stay", ("sex",)),
    }
