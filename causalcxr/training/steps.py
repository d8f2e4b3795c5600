"""Optimiser steps of one objective: which rows they see, at which rate, and what of a bad step is kept.

Nothing random is carried from one step to the next: the rows and the draws of a step follow from the seed and the
step's number.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Rows
from causalcxr.randomness import Draws, seed_of
from causalcxr.support.errors import TrainingError
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.objectives import Objective

__all__ = ["Steps", "learning_rate", "rows_of_step"]

log = logging.getLogger(__name__)


@dataclass
class Steps:
    """Takes steps of AdamW with clipped gradients; one that is not finite is skipped and counted."""

    name: str
    objective: Objective
    stage: StageConfig
    config: TrainConfig
    fabric: Fabric
    bad_steps: int = 0
    shown: str = ""  # the name in messages, and where its settings are, if not as `name` says
    settings_key: str = ""

    def __post_init__(self) -> None:
        # A fused step would unscale half-precision gradients by itself, and then they could not be clipped before.
        fused = self.config.precision != "16-mixed"
        optimizer = torch.optim.AdamW(
            self.objective.parameters(),
            lr=self.stage.learning_rate,
            betas=(self.stage.beta1, self.stage.beta2),
            weight_decay=self.stage.weight_decay,
            fused=fused,
            foreach=not fused,
        )
        module: Any = torch.compile(self.objective) if self.stage.compile else self.objective
        self.module, self.optimizer = self.fabric.setup(module, optimizer)
        self.parameters = dict(self.objective.named_parameters())

    def take(
        self,
        train: Rows,
        step: int,
        rate: float,
        seed: int | None = None,
        pull: Callable[[], None] | None = None,
        batch_size: int | None = None,
        left_out: Collection[str] = (),
    ) -> tuple[dict[str, float], float]:
        """Step number `step` at a learning rate: losses by variable, and the gradient's norm before clipping.

        `seed`: of rows and draws; the configuration's unless given, as `batch_size` is. `pull` may add to the
        gradients before they are clipped. `left_out`: variables whose loss does not count.
        """
        seed = self.config.seed if seed is None else seed
        accumulate = self.stage.accumulate
        self.objective.step.fill_(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals = dict.fromkeys(self.objective.names, 0.0)
        for micro in range(accumulate):
            losses = self._accumulate(
                train, step * accumulate + micro, seed, micro == accumulate - 1, batch_size, left_out
            )
            for name, loss in losses.items():
                totals[name] += float(loss.detach()) / accumulate
        if pull is not None:
            pull()
        norm = self._clip()
        if not math.isfinite(norm):
            self._count_bad_step(totals, step)
        scaler_skips = self.config.precision == "16-mixed"  # and lowers its scale
        if scaler_skips or (math.isfinite(norm) and not 0 < self.stage.skip_norm < norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return totals, norm

    def set_moments(self, parameter: Tensor, moments: Mapping[str, Tensor]) -> None:
        """Give the optimiser the moments of a parameter, as AdamW keeps them.

        They are laid out in memory as the parameter, which a fused step needs; the step is on the CPU unless it
        is fused.
        """
        fused = self.optimizer.param_groups[0]["fused"]
        self.optimizer.state[parameter] = {
            name: (value.clone().to(parameter.device) if fused else value.clone())
            if name == "step"
            else torch.empty_like(parameter, requires_grad=False).copy_(value)
            for name, value in moments.items()
        }

    def _accumulate(
        self, train: Rows, index: int, seed: int, last: bool, batch_size: int | None, left_out: Collection[str]
    ) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch, the `index`-th since the stage began."""
        fabric = self.fabric
        rank, world = fabric.global_rank, fabric.world_size
        rows = rows_of_step(seed, index, len(train), batch_size or self.stage.batch_size, rank, world)
        draws = Draws(seed_of(seed, self.name, index), fabric.device, rank, world)
        with fabric.no_backward_sync(self.module, enabled=not last):  # pyright: ignore[reportArgumentType]
            batch = fabric.to_device(train.batch(rows))
            losses = {k: v.mean() for k, v in self.module(batch, draws).items() if k not in left_out}
            fabric.backward(torch.stack(list(losses.values())).sum() / self.stage.accumulate)
        return losses

    def _clip(self) -> float:
        norm: Any = self.fabric.clip_gradients(
            self.module,  # pyright: ignore[reportArgumentType]
            self.optimizer,
            max_norm=self.stage.clip_norm,
            error_if_nonfinite=False,
        )
        return float(norm)

    def _count_bad_step(self, losses: Mapping[str, float], step: int) -> None:
        variables = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if not variables and self.config.precision == "16-mixed":
            return  # an overflow of the scaled gradients, which the scaler is there to handle
        self.bad_steps += 1
        gradients = (n for n, p in self.parameters.items() if p.grad is not None and not p.grad.isfinite().all())
        what = f"loss of '{variables[0]}'" if variables else f"gradient of '{next(gradients, '?')}'"
        where = f"stage '{self.shown or self.name}', step {step}"
        log.warning("%s: the %s is not finite; this step is skipped", where, what)
        if self.bad_steps > self.config.max_bad_steps:
            raise TrainingError(
                f"{where}: the {what} is not finite, step number {self.bad_steps} of this kind "
                f"(train.max_bad_steps is {self.config.max_bad_steps}); check the data, or lower "
                f"{self.key}.learning_rate"
            )

    @property
    def key(self) -> str:
        """Where the configuration has this stage's settings; several stages may share them."""
        if self.settings_key:
            return self.settings_key
        shared = [f"train.{name}" for name, value in vars(self.config).items() if value is self.stage]
        return shared[0] if shared else f"train.{self.name}"


def rows_of_step(seed: int, step: int, n: int, batch: int, rank: int = 0, world: int = 1) -> np.ndarray:
    """Row numbers `(batch,)` for one process at one step: consecutive slices of an endless shuffled stream."""
    positions = (step * world + rank) * batch + np.arange(batch)
    epochs = positions // n
    rows = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = _epoch_order(seed, int(epoch), n)[positions[here] % n]
    return rows


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate` of the peak."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return stage.learning_rate * warm * (stage.final_learning_rate + (1 - stage.final_learning_rate) * cosine)
