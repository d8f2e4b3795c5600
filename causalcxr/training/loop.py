"""The one loop that every stage uses: devices and precision through Fabric, moving average, checkpoints, resume.

Nothing random is carried from one step to the next: the rows and the draws of a step follow from the seed and
the step's number. So a run that was killed and started again takes exactly the steps it would have taken.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Rows
from causalcxr.randomness import Draws, seed_of
from causalcxr.support.errors import DataError, RunError, TrainingError
from causalcxr.support.files import load_tensors, save_tensors
from causalcxr.support.progress import progress_bar
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.objectives import Objective
from causalcxr.training.steps import Steps, learning_rate

__all__ = ["Fit", "Progress"]

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a stage stands. Stored with every checkpoint."""

    step: int = 0
    best: float = math.inf  # lowest validation loss so far
    bad_steps: int = 0  # skipped because a loss or gradient was not finite
    seconds: float = 0.0  # of training, over all processes that took it up


@dataclass
class Fit:
    """Fits one objective: `run()` minimises it, resuming from `folder` if that holds a checkpoint.

    Afterwards the objective holds the best weights: the moving average with the lowest validation loss, or the
    last one if the objective says so. Floating buffers are part of the weights.
    """

    name: str
    objective: Objective
    train: Rows
    val: Rows
    stage: StageConfig
    config: TrainConfig
    fabric: Fabric
    folder: Path
    record: Callable[[dict[str, Any]], None]
    shown: bool = True  # the progress bar
    progress: Progress = field(default_factory=Progress)
    ema: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split, rows in {"train": self.train, "val": self.val}.items():
            if len(rows) == 0:
                raise DataError(f"stage '{self.name}': the split '{split}' is empty")
        self.steps = Steps(self.name, self.objective, self.stage, self.config, self.fabric)
        self.optimizer, self.parameters = self.steps.optimizer, self.steps.parameters
        buffers = {name: b for name, b in self.objective.named_buffers() if b.is_floating_point()}
        self.weights: dict[str, Tensor] = {**self.parameters, **buffers}
        self.ema = {name: w.detach().clone() for name, w in self.weights.items()}
        self.checkpoint = self.folder / f"{self.name}.safetensors"
        self.best = self.folder / f"{self.name}.best.safetensors"

    def run(self) -> Progress:
        """Take the steps that are left. Raises TrainingError after too many non-finite steps."""
        self._resume()
        self.objective.train()
        seconds_before, begun = self.progress.seconds, time.perf_counter()
        steps, shown = self.stage.steps, self.shown and self.fabric.is_global_zero
        with progress_bar(self.name, steps, self.progress.step, shown) as advance, self._compiler_named():
            while self.progress.step < steps:
                losses, norm = self._step()
                self.progress.step += 1
                self.progress.seconds = seconds_before + time.perf_counter() - begun
                advance(" ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))
                if self._due(self.config.log_every):
                    self._record_step(losses, norm)
                if self._due(self.stage.validate_every):
                    self._keep_best(self.validate())
                if self._due(self.stage.checkpoint_every):
                    self._save()
        self._load(load_tensors(self.best)[0])
        self.objective.eval()
        return self.progress

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean validation loss by variable, of the averaged weights, with the same draws at every call."""
        limit, size, fabric = self.stage.validate_rows, 4 * self.stage.batch_size, self.fabric
        n = min(len(self.val), limit) if limit else len(self.val)
        sums = {name: torch.zeros((), device=fabric.device) for name in self.objective.names}
        self.objective.eval()
        with self._averaged_weights():
            for i, start in enumerate(range(0, n, size)):
                if i % fabric.world_size != fabric.global_rank:
                    continue
                batch = fabric.to_device(self.val.batch(np.arange(start, min(start + size, n))))
                with fabric.autocast():
                    losses = self.objective(batch, Draws(seed_of(self.config.seed, i), fabric.device))
                for name, loss in losses.items():
                    sums[name] += loss.float().sum()
        self.objective.train()
        reduced: Any = fabric.all_reduce(sums, reduce_op="sum")
        return {name: float(total) / n for name, total in reduced.items()}

    def _step(self) -> tuple[dict[str, float], float]:
        """One optimiser step: losses by variable and the gradient's norm before clipping."""
        step = self.progress.step
        found = self.steps.take(self.train, step, learning_rate(self.stage, step))
        self.progress.bad_steps = self.steps.bad_steps
        self._update_average()
        return found

    def _update_average(self) -> None:
        """Moving average of the weights; its horizon grows with the step so that the start is forgotten."""
        weight = 1 - min(self.stage.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        current = [w.detach() for w in self.weights.values()]
        torch._foreach_lerp_(list(self.ema.values()), current, weight)  # pyright: ignore

    def _keep_best(self, losses: dict[str, float]) -> None:
        total = sum(losses.values())
        better = total < self.progress.best or not self.best.exists() or self.objective.keeps_last
        self.record({"stage": self.name, "step": self.progress.step, "split": "val", **losses, "kept": better})
        self.fabric.barrier()  # every process has looked whether the file is there
        if better:
            self.progress.best = total
            if self.fabric.is_global_zero:
                save_tensors(self.best, self.ema, {"step": self.progress.step, "loss": total})
        self.fabric.barrier()

    def _record_step(self, losses: dict[str, float], norm: float) -> None:
        rows = self.progress.step * self.stage.batch_size * self.stage.accumulate * self.fabric.world_size
        self.record(
            {"stage": self.name, "step": self.progress.step, "split": "train", **losses}
            | {"gradient_norm": norm, "learning_rate": self.optimizer.param_groups[0]["lr"]}
            | {"bad_steps": self.progress.bad_steps, "seconds": self.progress.seconds, "rows": rows}
            | self.objective.state()
        )

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.stage.steps

    @contextmanager
    def _compiler_named(self) -> Iterator[None]:
        """A failure of torch.compile in one line; it compiles when a step first needs it."""
        try:
            yield
        except RuntimeError as error:
            if type(error).__module__ not in ("torch._dynamo.exc", "torch._inductor.exc"):
                raise
            why = " ".join(str(error).splitlines()[:2]).strip()  # the second names the cause if a backend failed
            hint = f"set {self.steps.key}.compile=false"
            raise TrainingError(f"stage '{self.name}': torch.compile failed, {why}; {hint}") from error

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        kept = {name: w.detach().clone() for name, w in self.weights.items()}
        self._load(self.ema)
        yield
        self._load(kept)

    @torch.no_grad()
    def _load(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            tensors = {f"weights/{name}": w for name, w in self.weights.items()}
            tensors |= {f"ema/{name}": value for name, value in self.ema.items()}
            for name, parameter in self.parameters.items():
                moments = self.optimizer.state.get(parameter, {})
                tensors |= {f"{key}/{name}": value for key, value in moments.items()}
            save_tensors(self.checkpoint, tensors, vars(self.progress))
        self.fabric.barrier()

    def _resume(self) -> None:
        self.fabric.barrier()
        if not self.checkpoint.exists():
            return
        tensors, counters = load_tensors(self.checkpoint)
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = tensor
        if groups["weights"].keys() != self.weights.keys():
            raise RunError(f"'{self.checkpoint}' is of another model; choose another run= or delete it")
        self._load(groups.pop("weights"))
        ema = groups.pop("ema")  # in the order of the weights, not of the file
        self.ema = {name: ema[name].to(w.device) for name, w in self.weights.items()}
        for name, parameter in self.parameters.items():
            moments = {key: values[name] for key, values in groups.items() if name in values}
            self.steps.set_moments(parameter, moments)
        self.progress = Progress(**counters)
        self.steps.bad_steps = self.progress.bad_steps
        log.info("stage '%s' goes on at step %d of %d", self.name, self.progress.step, self.stage.steps)
