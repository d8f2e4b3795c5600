"""LEACE on a million embeddings of 1,408 features from disk, and beside the concept-erasure package in memory."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from causalcxr.debias.linear import LEACE
from causalcxr.debias.moments import blocks

__all__ = ["measure_stream"]

ROWS, FEATURES, BESIDE, REPEATS = 1_000_000, 1408, 100_000, 3


def measure_stream() -> dict[str, Any]:
    """`ratio`: seconds of the peer over ours, fit and apply, on the same rows. `peak_mib`: of a million."""
    found: dict[str, Any] = {}
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "embeddings.npy"
        write(path)
        said = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True, check=True)
        peak, seconds = map(float, said.stdout.split())
        found |= {"peak_mib": peak, "million_seconds": seconds}
    try:
        found |= beside()
    except ImportError:
        print("no peer: pip install concept-erasure")
    print(found)
    return found


def write(path: Path) -> None:
    """Embeddings of a million rows, block by block; whose sex is that of `sex_of`."""
    random = np.random.default_rng(0)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(ROWS, FEATURES))
    sex = sex_of(ROWS)
    for start in range(0, ROWS, 10_000):
        block = random.standard_normal((10_000, FEATURES), dtype=np.float32)
        block[:, 0] += sex[start : start + 10_000]
        made[start : start + 10_000] = block
    made.flush()


def sex_of(rows: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, rows)


def stream(path: Path) -> None:
    """Fit and apply, each in one pass over the file; prints the peak of memory in MiB, and seconds."""
    z, peak = np.load(path, mmap_mode="r"), Peak()
    peak.start()
    begun = time.perf_counter()
    eraser = LEACE().fit(z, sex_of(len(z)))
    out = np.lib.format.open_memmap(path.with_name("erased.npy"), mode="w+", dtype=z.dtype, shape=z.shape)
    for rows, block in blocks(z):
        out[rows] = eraser.transform(block)
    print(peak.mib, time.perf_counter() - begun)


class Peak(threading.Thread):
    """The most memory of its own; pages of mapped files, which the system may drop, are not counted."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            (own,) = [line for line in lines if line.startswith("RssAnon")]
            self.mib = max(self.mib, int(own.split()[1]) / 1024)
            time.sleep(0.02)


def beside() -> dict[str, Any]:
    """Both on the same rows in memory, in turn."""
    import torch
    from concept_erasure import LeaceEraser

    random = np.random.default_rng(0)
    z = random.standard_normal((BESIDE, FEATURES), dtype=np.float32)
    sex = sex_of(BESIDE)
    z[:, 0] += sex
    theirs, ours = [], []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        eraser = LeaceEraser.fit(torch.from_numpy(z), torch.from_numpy(sex).float())
        eraser(torch.from_numpy(z))
        theirs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        LEACE().fit(z, sex).transform(z)
        ours.append(time.perf_counter() - begun)
    return {"ratio": median(theirs) / median(ours), "seconds": {"ours": ours, "concept_erasure": theirs}}


if __name__ == "__main__":
    stream(Path(sys.argv[1]))
