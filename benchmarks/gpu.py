"""What only a GPU can show, in at most nine minutes: speed, memory and precision of the networks that it is for.

    python benchmarks/gpu.py                    into results/gpu.json, beside other devices' numbers
    python benchmarks/gpu.py --out FILE         into another file
    python benchmarks/gpu.py --parts agreement  some parts only

`agreement`: how far images made on the device are from those that the CPU makes of the same noise, in grey
levels. `training`: a step of the image stage by preset and precision, images a second and peak memory.
`checkpointing`: what `model.hvae.checkpoint` saves and costs. `counterfactuals`: eight interventions on one
abduction, decoded together. `compile`: the measure of `compile.py`. Each part is written as soon as it is done,
and none begins after the time is up.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compile import measure, model
from speed import INTERVENTIONS

from causalcxr.mechanisms.image import ImageNoise
from causalcxr.randomness import Draws
from causalcxr.support.files import write_json
from causalcxr.training.objectives import ImageObjective

RESULTS = Path(__file__).parent / "results" / "gpu.json"
SECONDS = 480  # after which no part begins; the longest takes about one minute
PRESETS = ("hvae64", "hvae128", "hvae192", "flow192")
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--rows", type=int, default=32)
    options = parser.parse_args()
    begun, device = time.monotonic(), "cuda" if torch.cuda.is_available() else "cpu"
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    mine = results.setdefault(name, {}) | {"torch": torch.__version__, "rows": options.rows}
    for part in options.parts:
        for preset in options.presets:
            if time.monotonic() - begun > SECONDS:
                sys.stdout.write(f"{part} {preset}: not begun, {SECONDS} s are over\n")
                continue
            mine[part] = mine.get(part, {}) | {preset: PARTS[part](preset, options.rows, device)}
            sys.stdout.write(f"{part} {preset}: {json.dumps(mine[part][preset])}\n")
            write_json(options.out, results | {name: mine})


@torch.no_grad()
def agreement(preset: str, rows: int, device: str) -> dict[str, float]:
    """Largest and mean difference in grey levels, of the same parents and noise, in float32 on both."""
    scm = model(preset)
    batch = scm.sample(rows, seed=0)
    image = scm.image_mechanism
    noise, parents = image.sample_noise(rows, Draws(1)), {name: batch[name] for name in scm.graph.attributes}
    there = image(noise, parents)
    image.to(device)
    here = image(_moved(noise, device), {name: values.to(device) for name, values in parents.items()}).cpu()
    difference = 255 * (here - there).abs()
    return {"largest_levels": difference.max().item(), "mean_levels": difference.mean().item()}


def training(preset: str, rows: int, device: str) -> dict[str, Any]:
    """By precision, as `train.precision` names them."""
    return {name: _training_step(preset, rows, device, *how) for name, how in PRECISIONS.items()}


PRECISIONS = {"32": (None, False), "32 with tf32": (None, True), "bf16-mixed": (torch.bfloat16, False)}


def checkpointing(preset: str, rows: int, device: str) -> dict[str, Any]:
    """A step of the VAE in bf16 with the activations kept, and with them computed again."""
    return {
        f"checkpoint={kept}": _training_step(
            preset, rows, device, torch.bfloat16, False, f"model.hvae.checkpoint={kept}"
        )
        for kept in (False, True)
        if preset.startswith("hvae")
    }


@torch.no_grad()
def counterfactuals(preset: str, rows: int, device: str) -> dict[str, float]:
    """Images a second of eight interventions decoded together, and how many times faster than one by one."""
    scm = model(preset).to(device)
    batch = scm.sample(rows, seed=0)
    abduction = scm.abduct(batch, seed=0)

    def together() -> None:
        scm.counterfactual(abduction, do=INTERVENTIONS)

    def one_by_one() -> None:
        for do in INTERVENTIONS:
            scm.counterfactual(scm.abduct(batch, seed=0), do=do)

    slow, fast = _seconds(one_by_one, device), _seconds(together, device)
    return {
        "images_a_second": len(INTERVENTIONS) * rows / fast,
        "times_faster_than_one_by_one": slow / fast,
        "peak_mib": _peak_mib(together, device),
    }


def compiled(preset: str, rows: int, device: str) -> dict[str, float]:
    """Compiled training steps against plain ones."""
    return measure(preset, rows, REPEATS, device)


PARTS: dict[str, Callable[[str, int, str], dict[str, Any]]] = {
    "agreement": agreement,
    "training": training,
    "checkpointing": checkpointing,
    "counterfactuals": counterfactuals,
    "compile": compiled,
}


def _training_step(
    preset: str, rows: int, device: str, dtype: torch.dtype | None, tf32: bool, *settings: str
) -> dict[str, float]:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    scm = model(preset, *settings).to(device)
    objective, batch = ImageObjective(scm), scm.sample(rows, seed=0)
    optimizer = torch.optim.AdamW(objective.parameters(), fused=True)

    def step() -> None:
        with torch.autocast(device, dtype=dtype or torch.float32, enabled=dtype is not None):
            loss = torch.stack([part.mean() for part in objective(batch, Draws(0, device)).values()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = _seconds(step, device)
    return {
        "milliseconds": 1000 * seconds,
        "images_a_second": rows / seconds,
        "peak_mib": _peak_mib(step, device),
    }


def _moved(noise: ImageNoise, device: str) -> Any:
    """The same noise on another device."""
    found = {}
    for part in dataclasses.fields(noise):  # pyright: ignore[reportArgumentType]
        value = getattr(noise, part.name)
        if isinstance(value, tuple):
            value = tuple(one.to(device) for one in value)
        found[part.name] = value.to(device) if isinstance(value, torch.Tensor) else value
    return type(noise)(**found)


def _seconds(work: Callable[[], None], device: str) -> float:
    """The median of REPEATS, after one to warm up."""
    seconds = []
    for _ in range(REPEATS + 1):
        _wait(device)
        begun = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def _peak_mib(work: Callable[[], None], device: str) -> float:
    """Of the device's memory; 0 on a CPU."""
    if device != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    work()
    _wait(device)
    return torch.cuda.max_memory_allocated() / 2**20


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
