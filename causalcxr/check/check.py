"""Test what a graph claims against a cohort: the independences, the edges, and the fit of every mechanism."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from causalcxr.check.blame import missing_edges
from causalcxr.check.calibration import Calibration, check_calibration
from causalcxr.check.claims import Claim, edges, implied_independences
from causalcxr.check.cohort import open_attributes, whole_cohort
from causalcxr.check.fitting import fit_mechanisms
from causalcxr.check.independence import Independence, check_independences
from causalcxr.data.cohort import Cohort
from causalcxr.metrics.p_values import holm
from causalcxr.scm import StructuralCausalModel

__all__ = ["LEVEL", "Findings", "check_graph", "compare"]

LEVEL = 0.05  # a graph that is right is contradicted in at most this share of cohorts


@dataclass(frozen=True)
class Findings:
    """Everything that was tested. p-values `adjusted` are corrected for all tests together, of both kinds.

    `missing` are the edges that the data want, each with the further contradictions that it accounts for;
    `unsupported` are the edges of the graph without which the data would look the same.
    """

    cohort: Cohort
    independences: Sequence[Independence]
    mechanisms: Sequence[Calibration]
    missing: Mapping[Claim, Sequence[Claim]]
    unsupported: Sequence[Independence]

    @property
    def tests(self) -> int:
        """How many p-values were corrected together."""
        return len(self.independences) + len(self.mechanisms)

    @property
    def contradicted(self) -> bool:
        """Whether the data contradict anything that the graph says."""
        return any(one.adjusted <= LEVEL for one in [*self.independences, *self.mechanisms])


def check_graph(graph: str, cohort: Sequence[str]) -> Findings:
    """Open the cohort, fit the mechanisms on its split `train`, and test the graph and the fit.

    Raises what `open_attributes`, `fit_mechanisms` and `compare` raise.
    """
    opened, config = open_attributes(graph, cohort)
    scm = fit_mechanisms(opened, config)
    return compare(scm, opened, len(opened.split("train")))


def compare(scm: StructuralCausalModel, cohort: Cohort, trained_on: float) -> Findings:
    """Test the model's graph on all rows, and its mechanisms, fitted to `trained_on` rows, on the split `test`.

    Raises DataError: too few rows for what has to be conditioned on.
    """
    graph = cohort.graph
    test = partial(check_independences, graph, *whole_cohort(cohort))
    claims = test(implied_independences(graph))
    held_out = cohort.split("test")
    fits = [check_calibration(scm, name, held_out, trained_on) for name in graph.attributes]
    adjusted = holm([one.p for one in [*claims, *fits]])
    claims = [replace(one, adjusted=p) for one, p in zip(claims, adjusted, strict=False)]
    fits = [replace(one, adjusted=p) for one, p in zip(fits, adjusted[len(claims) :], strict=True)]
    contradicted = [one for one in claims if one.adjusted <= LEVEL]
    missing = missing_edges(contradicted, lambda claim: test([claim])[0], LEVEL / len(adjusted))
    unsupported = [one for one in test(edges(graph)) if one.p > LEVEL]
    return Findings(cohort, claims, fits, missing, unsupported)
