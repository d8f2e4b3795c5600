"""An adversary that reads attributes from codes, done right.

It takes several steps on codes as they stand, without a gradient to who makes them; then they move, against the
adversary as it stands, towards the answer of one who knows nothing, the mean. Never towards minus its loss, which
a wrong answer that is sure would satisfy, and that tells as much as a right one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from causalcxr.debias.networks import batches, mlp

__all__ = ["Adversary"]

STEPS = 4  # to one of those who are read
BATCH = 512


class Adversary:
    """Reads the attributes' columns `(N, A)` from codes of `width` numbers; each column counts alike."""

    def __init__(self, width: int, hidden: int, codes: Tensor, seed: int):
        self.network = mlp(width, hidden, codes.shape[1])
        self.codes = (codes - codes.mean(dim=0)) / codes.std(dim=0).clamp_min(1e-6)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=2e-3)
        self.rows = batches(len(codes), BATCH, seed + 1)

    def learn(self, read: Callable[[Tensor], Tensor]) -> None:
        """A few steps; `read` gives the codes of rows as they stand."""
        for _ in range(STEPS):
            rows = next(self.rows)
            with torch.no_grad():
                seen = read(rows)
            self.optimiser.zero_grad(set_to_none=True)
            (self.network(seen) - self.codes[rows]).square().mean().backward()
            self.optimiser.step()

    def told(self, code: Tensor) -> Tensor:
        """How far its answers are from the mean, 0 to 1; gradients reach the code alone."""
        self.network.requires_grad_(False)
        found = self.network(code).square().mean()
        self.network.requires_grad_(True)
        return found
