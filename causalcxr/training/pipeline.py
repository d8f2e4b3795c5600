"""Train a run: prepare the cohort, fit the attributes, fit the image; resume where an earlier process stopped."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from causalcxr.config import Config, LogConfig, TrainConfig
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.predictors.predictor import Predictor
from causalcxr.runs import Run, plan_run, versions
from causalcxr.support.errors import ConfigError
from causalcxr.support.files import load_metadata, write_atomically
from causalcxr.training.stages import STAGE_RUNNERS, Context, check_stages

__all__ = ["flushed_denormals", "launch", "train"]

log = logging.getLogger(__name__)


def train(config: Config, predictor: Predictor | None = None) -> Path:
    """Run every stage that is not finished yet; returns the run folder.

    The same call on a killed run goes on and, on a CPU, ends in the same weights bit for bit. `predictor` tunes
    in the place of the run's own (see predictors/adapters.py); it is calibrated on the validation split first.
    """
    with flushed_denormals():
        return _train(config, predictor)


def _train(config: Config, predictor: Predictor | None) -> Path:
    fabric = launch(config.train)
    begun = time.perf_counter()
    run = plan_run(config)
    check_stages(run, predictor)
    with fabric.rank_zero_first():
        cohort = open_cohort(config.data, run.graph)
    log.info("cohort '%s': %s", cohort.folder, _sizes(cohort))
    run.refuse_other_data(cohort.data_hash)
    if fabric.is_global_zero:
        run.begin()
        run.note(versions=versions(), data_hash=cohort.data_hash, device=_device_name(fabric))
        if "prepare" not in run.provenance["seconds"]:
            run.note(seconds={"prepare": time.perf_counter() - begun})
    _run_stages(run, cohort, fabric, predictor)
    return run.folder


def _run_stages(run: Run, cohort: Cohort, fabric: Fabric, predictor: Predictor | None) -> None:
    config, scm = run.config.train, run.build_model()
    scm.calibrate(cohort.split("train").attributes)
    finished = run.finished_stages()
    if finished:
        run.load_weights(scm)
    context = Context(run, cohort, scm, fabric, lambda name: _recorder(run, name, fabric), predictor)
    for name in config.stages:
        if name in finished:
            log.info("stage '%s' is finished already", name)
            continue
        facts = STAGE_RUNNERS[name](context)
        finished.append(name)
        if fabric.is_global_zero:
            run.save_model(scm, finished, facts)
            run.note(parameters=sum(p.numel() for p in scm.parameters()), **facts)
        fabric.barrier()


def launch(config: TrainConfig) -> Fabric:
    """Devices, precision and threads as configured. Raises ConfigError: a GPU is asked for and none is there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda' but no GPU is to be seen; set train.device=cpu")
    gpu = config.device != "cpu" and torch.cuda.is_available()
    if config.threads:
        torch.set_num_threads(config.threads)
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true"
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=precision,  # pyright: ignore[reportArgumentType]
    )
    fabric.launch()
    return fabric


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers next to nothing count as 0: tiny gradients otherwise slow a CPU down many times."""
    already = bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _recorder(run: Run, stage: str, fabric: Fabric) -> Callable[[dict[str, Any]], None]:
    """Appends to metrics.jsonl (and wandb), on the first process only."""
    if not fabric.is_global_zero:
        return lambda values: None
    path = run.folder / "metrics.jsonl"
    _forget_lines_after_checkpoint(path, run, stage)
    tracker = _wandb(run.config.log, run)

    def record(values: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if tracker is not None:
            split = values["split"]
            tracker.log({f"{stage}/{split}/{k}": v for k, v in values.items() if isinstance(v, int | float)})

    return record


def _forget_lines_after_checkpoint(path: Path, run: Run, stage: str) -> None:
    """A killed process may have logged steps that will now be taken again."""
    if not path.exists():
        return
    checkpoint = run.state / f"{stage}.safetensors"
    step = load_metadata(checkpoint)["step"] if checkpoint.exists() else 0
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by the kill
        if values["stage"] != stage or values["step"] <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))


def _wandb(config: LogConfig, run: Run) -> Any:
    if config.wandb == "off":
        return None
    import wandb

    mode: Any = config.wandb
    return wandb.init(project=config.project, name=run.folder.name, dir=run.folder, mode=mode, resume="allow")


def _device_name(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name(fabric.device)}"
    threads = torch.get_num_threads()
    each = f"a CPU with {threads} thread{'' if threads == 1 else 's'}"
    return each if fabric.world_size == 1 else f"{fabric.world_size} processes, each on {each}"


def _sizes(cohort: Cohort) -> str:
    return ", ".join(f"{name} {len(cohort.split(name))}" for name in ("train", "val", "test"))
