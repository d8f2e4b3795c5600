"""The time of a flow, and the solution of its differential equation.

On the `straight` path an image at time t is `(1 - t) noise + t image` (Lipman et al. 2023, Liu et al. 2023). On
the `diffusion` path, of constant variance, it is `cos(a) noise + sin(a) image` with `a = pi / 2 * s` (Nichol and
Dhariwal 2021). That is the straight one at `t = sin(a) / (sin(a) + cos(a))`, scaled, so its probability-flow
equation is the same equation, and only where the times lie differs: in training, and between the solver's steps.
Euler's method on it is DDIM with eta = 0 (Song, Meng and Ermon 2021).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["PATHS", "SOLVERS", "integrate", "straight_time", "times_between"]

PATHS = ("straight", "diffusion")
SOLVERS = ("heun", "euler")


def straight_time(s: Tensor, path: str) -> Tensor:
    """The time t of the straight path that belongs to the time `s` of a path, both from 0 (noise) to 1 (image)."""
    if path == "straight":
        return s
    angle = 0.5 * math.pi * s
    return angle.sin() / (angle.sin() + angle.cos())


def times_between(start: float, end: float, steps: int, path: str) -> list[float]:
    """`steps + 1` times t of the straight path from `start` to `end`, evenly spaced in the time of `path`."""
    if path == "straight":
        return torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()
    first, last = (2 / math.pi * math.atan2(t, 1 - t) for t in (start, end))
    s = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    return [start, *straight_time(s, path)[1:-1].tolist(), end]


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Sequence[float], solver: str = "heun"
) -> Tensor:
    """Solve `dx/dt = velocity(x, t)` from the first time to the last.

    `x` `(B, ...)`; `velocity` takes times `(B,)`. Heun's method evaluates it twice a step, and its error falls
    with the square of the number of steps; Euler's once, and in proportion.
    """
    if times[0] == times[-1]:
        return x
    every = [torch.full((len(x),), t, device=x.device, dtype=x.dtype) for t in times]
    for (now, then), (start, end) in zip(pairwise(every), pairwise(times), strict=True):
        slope = velocity(x, now)
        if solver == "heun":
            slope = 0.5 * (slope + velocity(x + (end - start) * slope, then))
        x = x + (end - start) * slope
    return x
