"""p-values: of a chi-square statistic, of several tests together; and sums by patient, which they rest on."""

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["chi_square_tail", "holm", "sums_by_patient"]


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability that a chi-square variable on `degrees` of freedom exceeds `statistic`."""
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def sums_by_patient(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Sums of the rows of `values` `(N, k)` that belong to one patient, numbered from 0, `(patients, k)`."""
    return np.stack([np.bincount(patients, weights=column) for column in values.T], axis=1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: rejecting those up to .05 errs anywhere in at most 5 % (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = stepped.clip(max=1)
    return corrected.tolist()
