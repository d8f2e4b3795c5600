"""Does torch.compile pay? Training steps of the image's stage, compiled and not, in turn.

python benchmarks/compile.py --presets hvae32 hvae64       into results/compile.json, beside other devices' numbers
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from causalcxr.building import build_model, open_graph
from causalcxr.config import load_config
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.files import write_json
from causalcxr.training.objectives import ImageObjective

RESULTS = Path(__file__).parent / "results" / "compile.json"
STEPS = 4  # to one timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["hvae32", "hvae64"])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    measured = {preset: measure(preset, options.rows, options.repeats, device) for preset in options.presets}
    results[name] = {"rows": options.rows, "torch": torch.__version__} | measured
    write_json(RESULTS, results)
    sys.stdout.write(json.dumps(results[name], indent=2) + "\n")


def measure(preset: str, rows: int, repeats: int, device: str) -> dict[str, float]:
    """Seconds of the first compiled step, and how many times faster than plain ones the others are."""
    scm = model(preset).to(device)
    batch = scm.sample(rows, seed=0)
    plain = ImageObjective(scm.requires_grad_(True))
    compiled = torch.compile(plain)
    begun = time.perf_counter()
    take_steps(compiled, batch, device, steps=1)
    first = time.perf_counter() - begun
    take_steps(plain, batch, device, steps=1)
    times = [[_seconds(one, batch, device) for one in (plain, compiled)] for _ in range(repeats)]
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    return {"first_step_seconds": first, "step_milliseconds": 1000 * slow, "times_faster_compiled": slow / fast}


# What is no preset by itself: a flow at the literature's size.
FLOWS = {"flow192": ["data.size=192", "model.image=flow", "model.template.of=[sex,race,age]"]}


def model(preset: str, *settings: str) -> StructuralCausalModel:
    """An untrained model of a preset, or of one of FLOWS."""
    words = [*FLOWS.get(preset, [f"preset={preset}"]), *settings]
    return build_model(*open_graph(load_config(["graph=chest", *words])))


def take_steps(
    objective: Callable[..., Any], batch: dict[str, torch.Tensor], device: str, steps: int = STEPS
) -> None:
    """Forward and backward passes, with bf16 on a GPU as in training."""
    for step in range(steps):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = torch.stack(list(objective(batch, Draws(step, device)).values())).mean()
        loss.backward()
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(objective: Callable[..., Any], batch: dict[str, torch.Tensor], device: str) -> float:
    begun = time.perf_counter()
    take_steps(objective, batch, device)
    return (time.perf_counter() - begun) / STEPS


if __name__ == "__main__":
    main()
