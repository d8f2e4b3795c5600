"""Which missing edges account for the independences that the data contradict."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from causalcxr.check.claims import Claim
from causalcxr.check.independence import Independence
from causalcxr.support.errors import DataError

__all__ = ["missing_edges"]

Test = Callable[[Claim], Independence]


def missing_edges(contradicted: Sequence[Independence], test: Test, threshold: float) -> dict[Claim, list[Claim]]:
    """A smallest set of edges that the graph lacks, each a claim, with the other claims that they account for.

    An edge that is missing breaks other independences too: in a -> b -> c without b -> c, c depends on a. So for
    each variable the strongest of its contradicted non-parents becomes a parent, then the strongest of those that
    are still dependent (p at most `threshold`), and so on; last, any that the others make needless is dropped.
    This is the forward-backward search of a Markov boundary (Tsamardinos et al. 2003), among non-descendants.
    """
    found: dict[Claim, list[Claim]] = {}
    for later in dict.fromkeys(one.claim.later for one in contradicted):
        suspects = [one.claim for one in sorted(contradicted, key=_strongest) if one.claim.later == later]
        chosen = _backward(_forward(suspects, test, threshold), test, threshold)
        found |= {claim: [] for claim in chosen}
        found[chosen[0]] = [claim for claim in suspects if claim not in chosen]
    return found


def _strongest(tested: Independence) -> tuple[float, float]:
    return tested.p, -tested.statistic  # of two strong dependences p is 0 in floating point


def _forward(suspects: Sequence[Claim], test: Test, threshold: float) -> list[Claim]:
    chosen: list[Claim] = []
    left = list(suspects)
    while left:
        chosen.append(left[0])
        retested = {claim: _given_also(claim, chosen, test) for claim in left[1:]}
        dependent = [claim for claim, tested in retested.items() if tested.p <= threshold]
        left = sorted(dependent, key=lambda claim: _strongest(retested[claim]))
    return chosen


def _backward(chosen: list[Claim], test: Test, threshold: float) -> list[Claim]:
    for claim in list(chosen):
        others = [other for other in chosen if other != claim]
        if others and _given_also(claim, others, test).p > threshold:
            chosen = others
    return chosen


def _given_also(claim: Claim, parents: Sequence[Claim], test: Test) -> Independence:
    """The claim with more parents of its later variable; where rows are too few to test it, it stays refuted."""
    more = tuple(parent.earlier for parent in parents)
    with suppress(DataError):
        return test(Claim(claim.earlier, claim.later, (*claim.given, *more)))
    return Independence(claim, math.inf, 0, 0.0, math.nan)
