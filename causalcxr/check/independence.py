"""Is one attribute independent of another given a third? A test for labels and numbers alike, in any shape.

The generalised covariance measure (Shah and Peters 2020) of functions of both: regress functions f(X) and g(Y) on
the conditioning variables Z; under independence the products of their residuals have mean zero. It needs no model
of X or Y, only regressions whose errors multiply to less than the noise, and it holds its level where a test that
bins or permutes within strata of Z does not. Several functions at once (indicators of labels, polynomials of
ranks) find dependences that have no correlation, such as y = x^2. What it can't see is a dependence whose products
vanish on average over Z.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalcxr.check.basis import features, regression_design
from causalcxr.check.claims import Claim
from causalcxr.graph import Graph
from causalcxr.metrics.p_values import chi_square_tail, sums_by_patient

__all__ = ["Independence", "check_independences"]

SMALLEST = 1e-9  # share of a mean square below which it counts as none
COLLINEAR = 1e-12  # eigenvalues of a Gram matrix below this share of the largest count as none


@dataclass(frozen=True)
class Independence:
    """A tested claim: chi-square `statistic` on `degrees` of freedom, its p-value, and the dependence's strength.

    `strength` is the largest correlation of a function of one with a function of the other, after regression.
    """

    claim: Claim
    statistic: float
    degrees: int
    p: float
    strength: float
    adjusted: float = math.nan  # p corrected for all that was tested with it


def check_independences(
    graph: Graph, attributes: Mapping[str, np.ndarray], patients: np.ndarray, claims: Sequence[Claim]
) -> list[Independence]:
    """Test every claim on the rows of `attributes`, `(N,)` each; rows of one patient may depend on each other.

    `patients` `(N,)` numbers them from 0: the products are summed by patient before their covariance is taken.
    Raises DataError: too few rows to condition on what a claim is given.
    """
    tested: dict[Claim, Independence] = {}
    for given in dict.fromkeys(claim.given for claim in claims):
        together = [claim for claim in claims if claim.given == given]
        names = list(dict.fromkeys(name for claim in together for name in (claim.earlier, claim.later)))
        parts = [features(graph[name], attributes[name]) for name in names]
        residuals, rank = _residuals(graph, attributes, given, np.concatenate(parts, axis=1))
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        residual = dict(zip(names, np.split(residuals, ends, axis=1), strict=True))
        for claim in together:
            tested[claim] = _test(claim, residual[claim.earlier], residual[claim.later], patients, rank)
    return [tested[claim] for claim in claims]


def _residuals(
    graph: Graph, attributes: Mapping[str, np.ndarray], given: Sequence[str], targets: np.ndarray
) -> tuple[np.ndarray, int]:
    """What least squares on `given` leaves of each column of `targets` `(N, k)`, and the regression's rank."""
    if not given:
        return _emptied(targets - targets.mean(axis=0), targets), 1
    design = regression_design([graph[name] for name in given], [attributes[name] for name in given])
    gram: Any = sum(columns.T @ columns for _, columns in design.blocks())
    cross: Any = sum(columns.T @ targets[rows] for rows, columns in design.blocks())
    values, vectors = np.linalg.eigh(gram)
    kept = values > COLLINEAR * values.max()
    coefficients = vectors[:, kept] / values[kept] @ (vectors[:, kept].T @ cross)
    left = np.empty_like(targets)
    for rows, columns in design.blocks():
        left[rows] = targets[rows] - columns @ coefficients
    return _emptied(left, targets), int(kept.sum())


def _emptied(residuals: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Exactly zero where the regression explains all but rounding."""
    explained = (residuals**2).mean(axis=0) <= SMALLEST * (targets**2).mean(axis=0)
    return np.where(explained, 0.0, residuals)


def _test(claim: Claim, first: np.ndarray, second: np.ndarray, patients: np.ndarray, rank: int) -> Independence:
    n = len(first)
    products = (first[:, :, None] * second[:, None, :]).reshape(n, -1)
    scale = np.sqrt((first**2).sum(axis=0)[:, None] * (second**2).sum(axis=0)[None, :]).reshape(-1)
    products = products[:, scale > 0] / scale[scale > 0]
    if products.shape[1] == 0:
        return Independence(claim, 0.0, 0, 1.0, 0.0)
    sums = sums_by_patient(products, patients)
    total = sums.sum(axis=0)
    covariance = sums.T @ sums * (n / (n - rank))  # least squares takes as many directions away
    values, vectors = np.linalg.eigh(covariance)
    kept = values > COLLINEAR * values.max()
    statistic = float(((total @ vectors[:, kept]) ** 2 / values[kept]).sum())
    degrees = int(kept.sum())
    return Independence(claim, statistic, degrees, chi_square_tail(statistic, degrees), float(np.abs(total).max()))
