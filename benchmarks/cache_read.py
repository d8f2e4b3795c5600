"""How much faster a prepared cohort is read than its JPEGs are decoded.

    python benchmarks/cache_read.py                          # 256 x 256 JPEGs made on the spot
    python benchmarks/cache_read.py --root DIR               # a folder with metadata.csv (path, patient_id, age)

Measured on 2 CPU cores: 1,200 times on 2,811 JPEGs (256 x 256) of NIH ChestX-ray14 at 64 pixels, batches of 32.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from causalcxr.data import DataConfig, open_cohort
from causalcxr.data.images import read_image
from causalcxr.graph import graph_from_dict

GRAPH = {
    "age": {"kind": "continuous", "range": [0, 100], "unit": "years"},
    "image": {"kind": "image", "parents": ["age"]},
}
MADE, SIDE = 256, 256


def cache_read(root: str = "", size: int = 64, batch_size: int = 32, batches: int = 50) -> dict[str, Any]:
    """Time batches of random training rows, decoded from their files and read from the cache, in one thread.

    Without `root`, JPEGs are made first. Returns seconds of preparation, microseconds an image of either way
    (the median over batches; files and cache have been read once, so no disk is measured) and their ratio.
    """
    graph = graph_from_dict({"name": "age_and_image", "variables": GRAPH})
    with tempfile.TemporaryDirectory() as scratch:
        root = root or _make_jpegs(Path(scratch, "jpegs"))
        config = DataConfig(source="folder", root=root, size=size, cache=str(Path(scratch, "cache")))
        start = perf_counter()
        cohort = open_cohort(config, graph)
        seconds = perf_counter() - start
        train = cohort.split("train")
        files = [Path(cohort.source["root"], path) for path in cohort.manifest["path"].to_numpy()[train.rows]]

        def decode(rows: np.ndarray) -> None:
            np.stack([np.asarray(read_image(files[row], size, 1)) for row in rows])

        decoded = _microseconds(decode, len(train), batch_size, batches)
        cached = _microseconds(train.batch, len(train), batch_size, 10 * batches)
    return {
        "rows": len(cohort.manifest),
        "size": size,
        "batch_size": batch_size,
        "prepare_seconds": seconds,
        "decode_us_per_image": decoded,
        "cache_us_per_image": cached,
        "ratio": decoded / cached,
    }


def _microseconds(read: Callable[[np.ndarray], Any], n: int, batch_size: int, batches: int) -> float:
    """Median time an image, over batches of random rows."""
    random, times = np.random.default_rng(0), []
    for _ in range(batches):
        rows = random.integers(n, size=batch_size)
        start = perf_counter()
        read(rows)
        times.append(perf_counter() - start)
    return float(np.median(times)) / batch_size * 1e6


def _make_jpegs(root: Path) -> str:
    """Smooth random pictures with some grain, about as many bytes as a radiograph's JPEG."""
    root.mkdir()
    random = np.random.default_rng(0)
    splits = ["train"] * (MADE - 32) + ["val"] * 16 + ["test"] * 16
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient_id", "split", "age"])
        for i, split in enumerate(splits):
            coarse = Image.fromarray(random.uniform(0, 255, (8, 8)).astype(np.float32))
            levels = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            levels = levels + random.normal(0, 4, levels.shape)
            Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.jpg", quality=92)
            table.writerow([f"{i}.jpg", f"p{i}", split, 20 + i % 60])
    return str(root)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cache reading against decoding")
    parser.add_argument(
        "--root", default="", help="folder of images with metadata.csv; made on the spot if absent"
    )
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    print(json.dumps(cache_read(arguments.root, arguments.size), indent=2))
