"""Closed forms against section 9 of the method, and against integration."""

import numpy as np
import pytest

from causalcxr.bias.bayes import group_evidence, informed, optimum

FIGURES = {0.5: (0.0, 0.841), 0.6: (0.098, 0.846), 0.7: (0.205, 0.861), 0.8: (0.334, 0.888), 0.9: (0.521, 0.930)}


@pytest.mark.parametrize(("q", "expected"), FIGURES.items())
def test_the_stated_figures(q: float, expected: tuple[float, float]) -> None:
    """To the three decimals in which they are stated."""
    best = optimum(q)
    assert best.tpr_gap == pytest.approx(best.fpr_gap, abs=1e-12)
    assert (best.gap, best.accuracy) == pytest.approx(expected, abs=5.1e-4)
    assert (best.blind_accuracy, best.blind_auroc) == pytest.approx((0.8413, 0.9214), abs=1e-4)


def test_accuracy_by_integration() -> None:
    """Density of the severity on a grid, the rule of Bayes at each point; error of the sum below 1e-6."""
    q, e = 0.7, np.linspace(-9, 11, 200_001)
    step = e[1] - e[0]
    sick, well = (np.exp(-((e - m) ** 2) / 2) / np.sqrt(2 * np.pi) for m in (1, -1))
    right = sum(np.maximum(sick * a, well * b).sum() * step / 2 for a, b in ((q, 1 - q), (1 - q, q)))
    assert optimum(q).accuracy == pytest.approx(right, abs=1e-6)


def test_knowing_the_group_adds_its_evidence() -> None:
    added = np.log(4)
    assert group_evidence(0.8) == pytest.approx(added)
    expected = [[-added, added], [1 - added, 1 + added]]
    assert informed(np.array([0.0, 1.0]), 0.8) == pytest.approx(np.array(expected))
