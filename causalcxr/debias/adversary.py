"""An adversary in closed form, which reads attributes from embeddings or codes as well as its features allow.

One that is trained beside the encoder is always late, and to fool it once is not to have erased. This one is the
solution of a ridge regression on random Fourier features (Rahimi and Recht 2007), which are drawn anew at every
step, so that none is there to be fooled; the gradient goes through the solution (Sadeghi et al. 2021).

What the labels to keep say of an attribute is taken off it first, and the adversary knows these labels: the
target is that the attribute is independent of the code given the labels, which does not work against keeping
them.
"""

import numpy as np
import torch
from torch import Tensor

from causalcxr.debias.base import Fitting

__all__ = ["Adversary"]

_RIDGE = 1e-3  # of a feature's variance


class Adversary:
    """Reads the attributes of a fit beyond its labels to keep; each of their columns counts alike.

    `features`: how many are drawn, of widths from half the typical distance to four times as narrow.
    """

    def __init__(self, given: Fitting, features: int, seed: int):
        kept = np.zeros((len(given.z), 0))
        if given.keep_coding is not None and given.keep is not None:
            kept = given.keep_coding.encode(given.keep)
        with_mean = np.hstack([kept, np.ones((len(kept), 1))])
        left = given.codes - with_mean @ np.linalg.lstsq(with_mean, given.codes, rcond=None)[0]
        self.kept = torch.from_numpy(kept).float()
        self.attributes = torch.from_numpy(left / np.maximum(left.std(axis=0), 1e-6)).float()
        self.features, self.generator = features, torch.Generator().manual_seed(seed)

    def explained(self, values: Tensor, rows: Tensor) -> Tensor:
        """R², 0 to 1, of the attributes of `rows` `(B,)` from values `(B, D)`; the mean over columns."""
        known = torch.cat([values, self.kept[rows]], dim=1)
        found = self._features((known - known.mean(dim=0)) / known.detach().std(dim=0).clamp_min(1e-6))
        found = found - found.mean(dim=0)
        asked = self.attributes[rows] - self.attributes[rows].mean(dim=0)
        covariance = found.T @ found / len(rows) + _RIDGE * torch.eye(found.shape[1])
        root = torch.linalg.cholesky(covariance)
        solved = torch.linalg.solve_triangular(root, found.T @ asked / len(rows), upper=False)
        return solved.square().sum() / asked.shape[1]

    def _features(self, values: Tensor) -> Tensor:
        """The values themselves (of very many as many projections), and cosines of projections."""
        (n, d), generator = values.shape, self.generator
        count = max(1, min(self.features, n // 2))
        projected = values @ torch.randn(d, count, generator=generator) / d**0.5
        narrow = torch.exp2(3 * torch.rand(count, generator=generator) - 1)
        phase = 2 * torch.pi * torch.rand(count, generator=generator)
        return torch.cat([values if d <= count else projected, torch.cos(projected * narrow + phase)], dim=1)
