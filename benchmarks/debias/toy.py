"""A toy with known answers: sex is coded linearly and as an exclusive-or; sex and age are causes of a disease."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Toy", "draw"]

FEATURES = 128
SIGNAL, NOISE = 1.5, 0.5  # of the linear code of sex; of every feature


@dataclass(frozen=True)
class Toy:
    """Embeddings `(N, 128)`, their counterfactuals under do(sex) `(N, 2, 128)`, and the attributes `(N,)`."""

    z: np.ndarray
    pairs: np.ndarray
    sex: np.ndarray
    disease: np.ndarray


def draw(rows: int = 8000, seed: int = 0) -> Toy:
    """Sex 0 or 1 by the toss of a coin; disease follows age and sex by a logistic law."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(FEATURES, FEATURES)))[0]
    sex, age = random.integers(0, 2, rows), random.normal(size=rows)
    chance = 1 / (1 + np.exp(-(-1 + 0.8 * age + 0.45 * sex)))
    disease = (random.random(rows) < chance).astype(int)
    bit, noise = random.choice([-1.0, 1.0], rows), NOISE * random.normal(size=(rows, FEATURES))

    def embedding(sex: np.ndarray) -> np.ndarray:
        found = noise.copy()
        found[:, 0] += SIGNAL * (2 * sex - 1)
        found[:, 1] += bit
        found[:, 2] += bit * (2 * sex - 1)  # equal to the bit, or its opposite
        found[:, 3] += 4 * disease
        found[:, 4] += age
        return found @ turn.T

    pairs = np.stack([embedding(np.full(rows, value)) for value in (0, 1)], axis=1)
    return Toy(embedding(sex), pairs, sex, disease)
