"""Level and power of the audit's tests on the generator of the published audit, corrected.

    python benchmarks/audit/synthetic.py                      all cells, into results.json beside this file
    python benchmarks/audit/synthetic.py --rows 200 2000      only these; a cell that is there is not run again

    A ~ Bern(1/2)    Z_T ~ N(0, I)    Z_t = A M_t Z_(t+1) + (1 - A) N_t Z_(t+1) + noise    X = M_X Z_1 + r + noise

The rows of all matrices are uniform and divided by their L1 norm. Labels follow from `Z_T` by one of seven scores.
Unfair: a logistic regression of the label on X, whose log-odds depend on A by way of the matrices. Invariant: the
score itself, which is a function of `Z_T`, deterministic or with noise. The tests know A, `Z_T`, the score.
Source of the generator: Ma et al. 2025 (arXiv:2504.19621). Corrected: a counterfactual keeps every draw but A.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from causalcxr.audit import Dependence, as_published, gcm, pcm
from causalcxr.support.files import write_json

RESULTS = Path(__file__).parent / "results.json"
TESTS: dict[str, Callable[..., Dependence]] = {"pcm": pcm, "gcm": gcm, "as_published": as_published}
WIDTH, LAYERS, ALPHA = 32, 2, 0.05
NOISE = 0.01  # a logistic regression then agrees with itself under the other A in 0.73 of the rows
TRAINED = 4000  # rows that the unfair classifier is fitted to
Score = Callable[[np.ndarray], np.ndarray]
# Of the first coordinates of Z_T, about 0 on average.
SCORES: dict[str, Score] = {
    "linear": lambda z: z[:, :4].sum(axis=1),
    "quadratic": lambda z: (z[:, :4] ** 2 - 1).sum(axis=1) + z[:, 4],
    "exponential": lambda z: np.exp(z[:, 0]) - np.exp(0.5) + z[:, 1],
    "interaction": lambda z: 2 * z[:, 0] * z[:, 1] + z[:, 2],
    "log_exp": lambda z: np.logaddexp(0, 2 * z[:, 0]) - 1 + z[:, 1],
    "sine": lambda z: 2 * np.sin(2 * z[:, 0]) + z[:, 1],
    "relu": lambda z: 2 * np.maximum(z[:, 0], 0) - 0.8 + z[:, 1],
}


@dataclass(frozen=True)
class World:
    """The matrices of one generator `(32, 32)`, and the function that labels follow from."""

    under: Sequence[tuple[np.ndarray, np.ndarray]]
    last: np.ndarray
    shift: np.ndarray
    score: Score

    @classmethod
    def drawn(cls, rng: np.random.Generator, score: Score) -> "World":
        def matrix() -> np.ndarray:
            entries = rng.uniform(-10, 10, (WIDTH, WIDTH))
            return entries / np.abs(entries).sum(axis=1, keepdims=True)

        return cls([(matrix(), matrix()) for _ in range(LAYERS)], matrix(), rng.normal(size=WIDTH), score)

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """`a`, `z` (that is `Z_T`), `x`, the label, and `x` had A been the other value."""
        a, z = rng.integers(0, 2, n), rng.normal(size=(n, WIDTH))
        noise = [NOISE * rng.normal(size=(n, WIDTH)) for _ in range(LAYERS + 1)]
        label = rng.random(n) < 1 / (1 + np.exp(-self.score(z)))
        made, other = (self._image(value[:, None], z, noise) for value in (a, 1 - a))
        return {"a": a, "z": z, "x": made, "label": label, "x_other": other}

    def _image(self, a: np.ndarray, z: np.ndarray, noise: Sequence[np.ndarray]) -> np.ndarray:
        for (one, zero), extra in zip(self.under, noise[:-1], strict=True):
            z = a * (z @ one.T) + (1 - a) * (z @ zero.T) + extra
        return z @ self.last.T + self.shift + noise[-1]


def unfair(world: World, rng: np.random.Generator, n: int) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Rows, the log-odds of a logistic regression on X, and how often it agrees with itself under the other A."""
    train, rows = world.sample(rng, TRAINED), world.sample(rng, n)
    model = LogisticRegression(C=100, max_iter=1000).fit(train["x"], train["label"])
    odds, other = model.decision_function(rows["x"]), model.decision_function(rows["x_other"])
    return rows, odds, float(((odds > 0) == (other > 0)).mean())


def rejections(runs: int, make: Callable[[int], tuple[Any, Any, Any]]) -> dict[str, float]:
    """The share of runs in which each test rejects; `make` gives y, a and z of a seed."""
    drawn = (make(seed) for seed in range(runs))
    p_values = np.array([[test(*arrays).p for test in TESTS.values()] for arrays in drawn])
    return dict(zip(TESTS, (p_values < ALPHA).mean(axis=0).tolist(), strict=True))


def invariant_rows(seed: int, n: int, noisy: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    world = World.drawn(rng, list(SCORES.values())[seed % len(SCORES)])
    rows = world.sample(rng, n)
    y = world.score(rows["z"])
    return y + (rng.normal(size=n) if noisy else 0), rows["a"], rows["z"]


def unfair_rows(seed: int, n: int, permuted: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    rows, odds, _ = unfair(World.drawn(rng, list(SCORES.values())[seed % len(SCORES)]), rng, n)
    return odds, rng.permutation(rows["a"]) if permuted else rows["a"], rows["z"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    cells: dict[str, Callable[[], Any]] = {
        f"level/{kind}/{n}": lambda n=n, kind=kind: rejections(
            options.runs, lambda seed: invariant_rows(seed, n, kind == "noisy")
        )
        for n in options.rows
        for kind in ("deterministic", "noisy")
    }
    for n in options.rows:
        cells[f"level/permuted/{n}"] = lambda n=n: rejections(
            options.runs, lambda seed: unfair_rows(seed, n, permuted=True)
        )
    cells["power/1000"] = lambda: rejections(options.runs, lambda seed: unfair_rows(seed, 1000))
    for name, measure in cells.items():
        if name not in results.setdefault("synthetic", {}):
            results["synthetic"][name] = measure() | {"runs": options.runs}
            write_json(RESULTS, results)
            print(name, results["synthetic"][name], flush=True)


if __name__ == "__main__":
    main()
