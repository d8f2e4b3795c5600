"""Embeddings whose answers are known: sex is coded linearly and as an exclusive-or, and causes a disease."""

from dataclasses import dataclass

import numpy as np

from causalcxr.debias.tables import Embedded


@dataclass(frozen=True)
class Toy:
    z: np.ndarray
    pairs: np.ndarray
    sex: np.ndarray
    disease: np.ndarray

    @property
    def rows(self) -> Embedded:
        ids = np.arange(len(self.z)).astype(str)
        words = {
            "sex": np.where(self.sex == 1, "male", "female"),
            "disease": np.where(self.disease == 1, "yes", "no"),
        }
        return Embedded(
            self.z, ids, ids, {"sex": words["sex"]}, {"disease": words["disease"]}, None, self.pairs, {}
        )


def toy(rows: int = 4000, features: int = 12, seed: int = 0, effect: float = 0.1) -> Toy:
    """`effect`: how much more often men are ill."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(features, features)))[0]
    sex = random.integers(0, 2, rows)
    disease = (random.random(rows) < 0.3 + effect * sex).astype(int)
    bit, noise = random.choice([-1.0, 1.0], rows), 0.4 * random.normal(size=(rows, features))

    def embedding(sex: np.ndarray) -> np.ndarray:
        found = noise.copy()
        found[:, 0] += 1.5 * (2 * sex - 1)
        found[:, 1] += bit
        found[:, 2] += bit * (2 * sex - 1)
        found[:, 3] += 3 * disease
        return found @ turn.T

    pairs = np.stack([embedding(np.full(rows, value)) for value in (0, 1)], axis=1)
    return Toy(embedding(sex), pairs, sex, disease)
