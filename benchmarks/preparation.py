"""A cohort of the size that people have: 200,000 rows at 64 x 64, prepared, opened, and read while a model trains.

    python benchmarks/preparation.py                     prints and writes results/preparation.json
    python benchmarks/preparation.py --rows 20000        a quicker look

The pixels are made up, so that what is timed is the engine: table, parallel reading, cache, card, hash. Memory is
the peak of a process that does nothing else; opening is timed in a new process, its imports apart. A training step
is one of the preset quickstart's image stage. `cold` batches are read after the cache's file was dropped from the
system's memory, so they come from the disk.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from causalcxr.config import load_config
from causalcxr.data import Cohort, DataConfig, open_cohort, prepare_into
from causalcxr.data.source import Source
from causalcxr.graph import load_graph
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.training.objectives import ImageObjective

RESULTS = Path(__file__).parent / "results" / "preparation.json"
SIZE = 64
BATCHES = (1, 4, 16, 64)
COPIES = 64  # pictures that the rows take turns with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--out", default="", help="folder for the cohort; a temporary one if absent")
    parser.add_argument("--part", choices=("prepare", "open", "read"), help="one part, in this process")
    options = parser.parse_args()
    if options.part:
        part = {"prepare": prepare_rows, "open": open_rows, "read": read_rows}[options.part]
        sys.stdout.write(json.dumps(part(options.out, options.rows)) + "\n")
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or scratch
        measured = {part: _in_new_process(part, out, options.rows) for part in ("prepare", "open", "read")}
    measured = {"rows": options.rows, "size": SIZE, "cores": os.cpu_count()} | measured
    text = json.dumps(measured, indent=2) + "\n"
    sys.stdout.write(text)
    RESULTS.write_text(text)


def prepare_rows(out: str, rows: int) -> dict[str, float]:
    """Seconds, and the peak of resident memory in MiB, imports included."""
    idle, start = _peak_mib(), perf_counter()
    prepare_into(out, DataConfig(size=SIZE), load_graph("chest"), source=synthetic_source(rows))
    seconds = perf_counter() - start
    return {"seconds": seconds, "rows_a_second": rows / seconds, "peak_mib": _peak_mib(), "before_mib": idle}


def open_rows(out: str, rows: int) -> dict[str, float]:
    """Seconds until the first batch can be read."""
    start = perf_counter()
    cohort = _open(out)
    cohort.split("train").batch([0])
    assert len(cohort.manifest) == rows
    return {"seconds": perf_counter() - start}


def read_rows(out: str, rows: int) -> dict[str, Any]:
    """By batch size: milliseconds to read a random batch and of a training step, and their ratio."""
    cohort = _open(out)
    step = _training_step()
    found: dict[str, Any] = {}
    for size in BATCHES:
        drawn = np.random.default_rng(size).integers(0, len(cohort.split("train")), (1024, size))
        warm, cold = (_read_milliseconds(cohort, iter(drawn), cold) for cold in (False, True))
        batch = cohort.split("train").batch(drawn[0])
        train = _median_milliseconds(partial(step, batch), 5)
        found[str(size)] = {
            "read_ms": warm,
            "read_cold_ms": cold,
            "step_ms": train,
            "share": warm / train,
            "share_cold": cold / train,
        }
    return found


def synthetic_source(rows: int) -> Source:
    """Rows with attributes of a plausible law, two a patient, each with one of 64 pictures and its number."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (COPIES, 1, SIZE, SIZE), dtype=np.uint8)

    def table() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "path": [f"synthetic#{i}" for i in range(rows)],
                "patient_id": [f"p{i // 2:07d}" for i in range(rows)],
                "sex": random.choice(["female", "male"], rows),
                "race": random.choice(["white", "asian", "black"], rows, p=[0.6, 0.15, 0.25]),
                "age": random.uniform(20, 90, rows).round(1).astype(str),
                "finding": random.choice(["No Finding", "Pleural Effusion"], rows, p=[0.7, 0.3]),
            }
        )

    def pixels(chosen: Any, sizes: Any) -> list[list[np.ndarray]]:
        return [[_numbered(pictures[row % COPIES], row)] for row in chosen]

    return Source("made-up rows", {"source": "synthetic", "rows": rows}, {}, table, pixels)


def _numbered(picture: np.ndarray, row: int) -> np.ndarray:
    """No two rows have the same pixels: the first four hold the row's number."""
    numbered = picture.copy()
    numbered[0, 0, :4] = np.frombuffer(int(row).to_bytes(4, "little"), np.uint8)
    return numbered


def _open(out: str) -> Cohort:
    return open_cohort(DataConfig(prepared=out, size=SIZE), load_graph("chest"))


def _read_milliseconds(cohort: Cohort, drawn: Iterator[np.ndarray], cold: bool) -> float:
    train = cohort.split("train")

    def prepare_to_read() -> None:
        if cold:
            with (cohort.folder / "images.npy").open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return _median_milliseconds(lambda: train.batch(next(drawn)), 20 if cold else 200, prepare_to_read)


def _median_milliseconds(work: Callable[[], Any], repeats: int, before: Callable[[], Any] = lambda: None) -> float:
    seconds = []
    for _ in range(repeats + 1):
        before()
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])  # the first one warms up


def _training_step() -> Callable[[Any], None]:
    config = load_config(["preset=quickstart"])
    torch.manual_seed(0)
    scm = StructuralCausalModel(load_graph("chest"), config.model, config.data.size)
    objective = ImageObjective(scm)
    optimizer = torch.optim.AdamW(objective.parameters(), foreach=True)

    def step(batch: Any) -> None:
        losses = objective(batch, Draws(0))
        sum((loss.mean() for loss in losses.values()), torch.zeros(())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_new_process(part: str, out: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--out", out, "--rows", str(rows)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
