"""Random draws from an explicit seed, the same however many processes share a batch."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from causalcxr.support.errors import ConfigError

__all__ = ["Draws", "seed_of", "seeded"]


class Draws:
    """Where every random number of one computation comes from.

    With `seed=None` the draws come from torch's global generator, as Pyro users expect; the stream after
    `torch.manual_seed(s)` equals the stream of `Draws(s)`. With `world` processes, each draws the rows of the
    whole batch and keeps its own, so that N processes see the noise that one process would have seen.
    """

    def __init__(self, seed: int | None = None, device: torch.device | str = "cpu", rank: int = 0, world: int = 1):
        self.device, self.rank, self.world = torch.device(device), rank, world
        self.generator = None if seed is None else torch.Generator(self.device).manual_seed(_checked(seed))

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal draws of `shape`, whose first dimension is the rows of this process."""
        rows, *rest = shape
        drawn = torch.randn(rows * self.world, *rest, generator=self.generator, device=self.device, dtype=dtype)
        return drawn[self.rank * rows : (self.rank + 1) * rows]

    def uniform(self, columns: int, rows: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws from [0, 1) of shape `(columns, rows)`, rows being those of this process."""
        drawn = torch.rand(rows * self.world, columns, generator=self.generator, device=self.device, dtype=dtype)
        return drawn[self.rank * rows : (self.rank + 1) * rows].T

    def integers(self, high: int, rows: int) -> Tensor:
        """Whole numbers `(rows,)` from 0 to `high - 1`, all equally likely."""
        shape, rank = (rows * self.world,), self.rank
        drawn = torch.randint(high, shape, generator=self.generator, device=self.device)
        return drawn[rank * rows : (rank + 1) * rows]

    def exponential(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Exponential draws of mean 1 and of `shape`; above 0."""
        rows, *rest = shape
        drawn = torch.empty(rows * self.world, *rest, device=self.device, dtype=dtype)
        drawn = drawn.exponential_(generator=self.generator)
        return drawn.clamp_min(torch.finfo(drawn.dtype).tiny)[self.rank * rows : (self.rank + 1) * rows]

    def gumbel(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard Gumbel draws (mean 0.577) of `shape`."""
        return -self.exponential(*shape, dtype=dtype).log()


def _checked(seed: int) -> int:
    """A seed that torch takes. Raises ConfigError: no whole number, or one of more than 64 bits."""
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not -(2**63) <= seed < 2**64:
        raise ConfigError(f"seed: expected None or a whole number of at most 64 bits, got {reprlib.repr(seed)}")
    return int(seed)


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process."""
    words: list[int] = []
    for part in parts:
        number = part if isinstance(part, int) else int.from_bytes(part.encode(), "little")
        words += [number >> shift & 0xFFFFFFFF for shift in range(0, max(1, number.bit_length()), 32)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators start from `seed` inside, and go on outside as if nothing had been drawn.

    For what draws from them without asking, such as the initial weights of layers.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
