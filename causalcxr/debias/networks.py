"""Small networks on embeddings: how they are built and trained, and what their penalties are."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from causalcxr.debias.errors import EmbeddingsError

__all__ = ["Skipped", "batches", "finite_weights", "hsic", "mlp", "state_arrays", "take_state", "train"]


class Skipped(nn.Module):
    """A network beside a linear map of the same input: what is linear need not be learned by the network."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.linear, self.network = nn.Linear(inputs, outputs), mlp(inputs, hidden, outputs)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values) + self.network(values)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )


def batches(rows: int, size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers without end, every epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, rows)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % size].split(size)


def train(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    rows: int,
    steps: int,
    batch: int,
    seed: int,
) -> None:
    """Adam with a cosine schedule; `loss` maps row numbers `(B,)` to a number."""
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    drawn = batches(rows, batch, seed)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        loss(next(drawn)).backward()
        optimiser.step()
        schedule.step()


def finite_weights(of: object, *networks: nn.Module) -> None:
    """Makes networks double, so that a row's answer does not depend on those beside it.

    Raises EmbeddingsError: weights that are not finite.
    """
    for network in networks:
        network.double()
        if not all(bool(p.isfinite().all()) for p in network.parameters()):
            raise EmbeddingsError(
                f"{type(of).__name__} found no finite weights; it needs more rows, or fewer steps"
            )


def hsic(codes: Tensor, attributes: Tensor) -> Tensor:
    """The Hilbert-Schmidt independence criterion of codes `(B, K)` and attributes `(B, A)`: 0 if independent.

    Gaussian kernels as wide as the median distance (Gretton et al. 2005); without bias (Song et al. 2012), for
    a biased one never reaches 0 and distorts codes of many dimensions.
    """
    first, second, m = _kernel(codes), _kernel(attributes), len(codes)
    together = (first * second).sum()
    apart = first.sum() * second.sum() / ((m - 1) * (m - 2))
    between = 2 * (first.sum(dim=0) * second.sum(dim=0)).sum() / (m - 2)
    return (together + apart - between) / (m * (m - 3))


def _kernel(values: Tensor) -> Tensor:
    """Without its diagonal."""
    squares = torch.cdist(values, values).square()
    positive = squares.detach()[squares.detach() > 0]
    kernel = torch.exp(-squares / (positive.median() if positive.numel() else 1.0))
    return kernel - torch.diag(kernel.diagonal())


def state_arrays(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """A module's state by name."""
    return {f"{prefix}.{name}": value.detach().numpy() for name, value in module.state_dict().items()}


def take_state(module: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> nn.Module:
    """Undo `state_arrays`."""
    start = f"{prefix}."
    state = {
        name.removeprefix(start): torch.as_tensor(np.asarray(a))
        for name, a in arrays.items()
        if name.startswith(start)
    }
    module.load_state_dict(state)
    return module
