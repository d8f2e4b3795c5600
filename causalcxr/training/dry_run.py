"""A dry run: everything is built, every stage takes a few steps, and nothing is kept but an estimate."""

import json
import os
import resource
import sys
import tempfile
from dataclasses import dataclass, replace

import torch

from causalcxr.config import Config
from causalcxr.runs import open_run
from causalcxr.support.errors import ConfigError
from causalcxr.training.pipeline import train

__all__ = ["Estimate", "as_text", "dry_run"]

STEPS = 3  # of every stage; the first one warms up and is not timed
# What a stage trains one after the other, and the key of its settings; other stages have one part of their name.
PARTS = {
    "predictors": {"predictor": "predictors", "evaluator": "predictors"},
    "finetune": {"outputs": "outputs", "finetune": "finetune"},
}


@dataclass(frozen=True)
class Estimate:
    """What a training would take: seconds a step and steps by part, parameters, and peak memory in GiB."""

    seconds: dict[str, float]
    steps: dict[str, int]
    parameters: int
    memory: float
    where: str

    @property
    def hours(self) -> float:
        """Of all steps; validation and checkpoints come on top."""
        return sum(self.seconds[name] * self.steps[name] for name in self.seconds) / 3600


def dry_run(config: Config) -> Estimate:
    """Prepare the cohort (that is kept), build the model, take a few steps of every stage in a temporary folder.

    Raises ConfigError: several processes. Otherwise what `train` raises.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "a dry run takes one process; start it without torchrun and divide the hours by the GPUs"
        )
    keys = {part: key for stage in config.train.stages for part, key in PARTS.get(stage, {stage: stage}).items()}
    settings = {key: getattr(config.train, key) for key in keys.values()}
    few = {
        key: replace(stage, steps=STEPS, validate_rows=stage.batch_size, checkpoint_every=STEPS)
        for key, stage in settings.items()
    }
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        brief = replace(config, run=f"{folder}/run", train=replace(config.train, log_every=1, **few))
        run = open_run(train(brief))
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        parameters = int(run.provenance["parameters"])
        where = str(run.provenance["device"])
    timed = {part for part in keys if any(line["stage"] == part for line in lines)}  # not all always
    seconds = {part: _seconds(lines, part) for part in keys if part in timed}
    steps = {part: settings[keys[part]].steps for part in seconds}
    return Estimate(seconds, steps, parameters, _peak_memory(), where)


def as_text(estimate: Estimate) -> str:
    """The estimate as lines of text."""
    width = max(len(name) for name in estimate.seconds)
    lines = [
        f"  {name:{width}}  {estimate.seconds[name]:9.3f} s a step x {estimate.steps[name]:>9,} steps = "
        f"{estimate.seconds[name] * estimate.steps[name] / 3600:8.2f} h"
        for name in estimate.seconds
    ]
    return "\n".join(
        [
            f"dry run on {estimate.where}; nothing is kept but the prepared cohort",
            *lines,
            f"  about {estimate.hours:.2f} h in all, without validation; {estimate.parameters:,} parameters; "
            f"{estimate.memory:.2f} GiB of memory at most",
        ]
    )


def _seconds(lines: list[dict], part: str) -> float:
    """Of one step: the mean of all but the first."""
    taken = [line["seconds"] for line in lines if line["stage"] == part and line["split"] == "train"]
    return (taken[-1] - taken[0]) / max(1, len(taken) - 1)


def _peak_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
