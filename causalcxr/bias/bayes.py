"""What the best classifier does that sees severity and group.

Severity `e ~ N(+-1, 1)` is all that an image tells of the finding, prevalence is 0.5, and the group comes with
`P(B | finding) = q`, `P(B | no finding) = 1 - q`. Who sees the group has the log-odds `2 e +- log(q / (1 - q))`.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = ["Optimum", "group_evidence", "optimum"]

_PHI = NormalDist().cdf


@dataclass(frozen=True)
class Optimum:
    """Gaps are B minus A, of the share called positive among those with (tpr) and without (fpr) the finding.

    `blind_accuracy`, `blind_auroc`: of the best classifier that cannot see the group; its gaps are 0.
    """

    tpr_gap: float
    fpr_gap: float
    accuracy: float
    blind_accuracy: float = _PHI(1.0)
    blind_auroc: float = _PHI(math.sqrt(2.0))

    @property
    def gap(self) -> float:
        """The mean of both gaps; they are equal."""
        return (self.tpr_gap + self.fpr_gap) / 2


def group_evidence(q: float) -> float:
    """Log-odds that group B adds to the finding's, and A takes from them."""
    return math.log(q / (1.0 - q))


def optimum(q: float) -> Optimum:
    """The figures at one q, in closed form."""
    shift = group_evidence(q) / 2.0
    high, low = _PHI(1.0 + shift), _PHI(1.0 - shift)
    return Optimum(high - low, _PHI(shift - 1.0) - _PHI(-shift - 1.0), q * high + (1.0 - q) * low)


def informed(blind: np.ndarray, q: float) -> np.ndarray:
    """Log-odds `(..., 2)` in A and in B of one who reads `blind` `(...)` off the image and knows the group."""
    return blind[..., None] + group_evidence(q) * np.array([-1.0, 1.0])
