"""Disjoint parts of the patients: for the erasers, the probes, thresholds, and the scores."""

import numpy as np
import pandas as pd

from causalcxr.debias.errors import EmbeddingsError

__all__ = ["PARTS", "parts_given", "split_patients"]

PARTS = {"fit": 0.35, "probe": 0.3, "threshold": 0.1, "score": 0.25}
ALIASES = {"train": "fit", "val": "probe", "test": "score"}


def split_patients(patients: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Row numbers by part; all rows of a patient are in one."""
    names, member = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.round(np.cumsum([0.0, *PARTS.values()]) * len(names)).astype(int)
    found = {}
    for part, low, high in zip(PARTS, ends[:-1], ends[1:], strict=True):
        chosen = np.zeros(len(names), dtype=bool)
        chosen[order[low:high]] = True
        found[part] = np.flatnonzero(chosen[member])
        if not len(found[part]):
            raise EmbeddingsError(f"{len(names)} patients are too few for four parts ({', '.join(PARTS)})")
    return found


def parts_given(labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Row numbers by the part that a table says: fit, probe, threshold and score, or train, val and test.

    Without rows for thresholds a quarter of the probes' patients is taken. Raises EmbeddingsError: an unknown
    part, a part without rows, or a patient in two parts.
    """
    named = np.asarray([ALIASES.get(label, label) for label in labels])
    if len(unknown := np.setdiff1d(named, list(PARTS))):
        raise EmbeddingsError(f"part '{unknown[0]}' is none of {', '.join(PARTS)} (or train, val, test)")
    pairs = pd.DataFrame({"patient": patients, "part": named}).drop_duplicates()
    if (twice := pairs["patient"].duplicated()).any():
        one = pairs.loc[twice, "patient"].iloc[0]
        of = pairs.loc[pairs["patient"] == one, "part"]
        raise EmbeddingsError(f"patient '{one}' is in the parts {' and '.join(of)}; expected one part a patient")
    found = {part: np.flatnonzero(named == part) for part in PARTS}
    if not len(found["threshold"]) and len(found["probe"]):
        whose = np.unique(patients[found["probe"]])
        taken = np.random.default_rng(seed).permutation(whose)[: max(1, len(whose) // 4)]
        moved = np.isin(patients[found["probe"]], taken)
        found["threshold"], found["probe"] = found["probe"][moved], found["probe"][~moved]
    for part, rows in found.items():
        if not len(rows):
            raise EmbeddingsError(f"no row is in the part '{part}'")
    return found
