"""A bound on a loss, kept by a damped Lagrange multiplier (Platt and Barr 1987)."""

import torch
from torch import Tensor, nn

from causalcxr.training.config import FinetuneConfig

__all__ = ["Constraint"]


class Constraint(nn.Module):
    """The term that keeps a mean loss `E` at or below `bound` plus the configured tolerance.

    Damped: the present violation counts at once, and the multiplier follows it slowly. The gradient never pushes
    `E` up. The multiplier has a floor: let go, the decoder would drift to fainter changes that please the
    predictor as well.
    """

    multiplier: Tensor
    violation: Tensor

    def __init__(self, config: FinetuneConfig, bound: float):
        super().__init__()
        self.config, self.limit = config, bound + config.tolerance
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("violation", torch.zeros(()))

    def forward(self, losses: Tensor, world: int = 1) -> Tensor:
        """The term of each row `(B,)`; in training the multiplier moves. `world`: processes that share a batch."""
        violation = _mean_over_processes(losses.detach().mean(), world) - self.limit
        weight = (self.multiplier + self.config.damping * violation).clamp_min(self.config.multiplier_floor)
        if self.training:
            self.violation.copy_(violation)
            self.multiplier.add_(self.config.multiplier_rate * violation).clamp_(min=0)
        return weight * (losses - self.limit)

    def state(self) -> dict[str, float]:
        """What to record of a step: the multiplier, and how far the loss is below its bound."""
        return {"multiplier": float(self.multiplier), "slack": -float(self.violation)}


def _mean_over_processes(value: Tensor, world: int) -> Tensor:
    if world > 1:
        torch.distributed.all_reduce(value)
    return value / world
