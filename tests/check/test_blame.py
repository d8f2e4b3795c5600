"""Every edge that is taken out of the graph is named, and nothing else is."""

from functools import partial

import numpy as np
import pytest

from causalcxr.check.blame import missing_edges
from causalcxr.check.check import LEVEL
from causalcxr.check.claims import Claim, implied_independences
from causalcxr.check.independence import Independence, check_independences
from causalcxr.metrics.p_values import holm
from causalcxr.support.errors import DataError
from tests.check.worlds import EDGES, draw, world

ROWS = 3000


def blamed(graph, values):
    test = partial(check_independences, graph, values, np.arange(len(values["age"])))
    tested = test(implied_independences(graph))
    contradicted = [one for one, p in zip(tested, holm([one.p for one in tested]), strict=True) if p <= LEVEL]
    found = missing_edges(contradicted, lambda claim: test([claim])[0], LEVEL / len(tested))
    return {(edge.earlier, edge.later): explained for edge, explained in found.items()}, contradicted


@pytest.mark.parametrize("edge", EDGES)
def test_the_edge_that_was_taken_out_is_named(edge):
    # Besides the edge, something is named in at most 5 % of draws; the seeds are fixed.
    for seed in range(3):
        found, contradicted = blamed(world(edge), draw(ROWS, seed))
        assert list(found) == [edge]
        assert len(contradicted) == 1 + len(found[edge])


def test_the_whole_graph_is_not_blamed():
    for seed in range(3):
        assert blamed(world(), draw(ROWS, seed)) == ({}, [])


def test_the_end_of_a_cut_chain_is_accounted_for():
    # age -> dose -> stay without dose -> stay: stay depends on age too, but only through dose; and so does finding
    found, _ = blamed(world(("dose", "stay")), draw(ROWS, 0))
    assert {claim.earlier for claim in found["dose", "stay"]} == {"age", "finding"}


def test_two_edges_into_one_variable_are_both_named():
    found, _ = blamed(world(("race", "finding"), ("age", "finding")), draw(ROWS, 0))
    assert set(found) == {("race", "finding"), ("age", "finding")}


def test_where_a_claim_cannot_be_tested_again_it_stands():
    contradicted = [Independence(Claim(earlier, "c", ()), 50.0, 1, 1e-12, 0.5) for earlier in ("a", "b")]

    def too_few_rows(claim: Claim) -> Independence:
        raise DataError("too few rows")

    found = missing_edges(contradicted, too_few_rows, 0.01)
    assert found == {Claim("a", "c", ()): [], Claim("b", "c", ()): []}


def test_of_two_copies_one_is_blamed():
    contradicted = [Independence(Claim(earlier, "c", ()), 50.0, 1, 1e-12, 0.5) for earlier in ("a", "b")]
    found = missing_edges(contradicted, lambda claim: Independence(claim, 0.0, 0, 1.0, 0.0), 0.01)
    assert found == {Claim("a", "c", ()): [Claim("b", "c", ())]}
