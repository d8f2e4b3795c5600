"""Morpho-MNIST with thickness and intensity: IDX files and their tables, as published with DeepSCM."""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.images import constant
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import read_table
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["morphomnist_source", "read_idx"]

SIDE = 28
UNSIGNED_BYTE = 0x08  # IDX type code


def morphomnist_source(config: DataConfig, graph: Graph) -> Source:
    """Digits of 28 x 28, zero-padded (never resized) to `size`. Columns: digit, thickness, intensity.

    The test split is the published one; validation is the last `validation_fraction` of the training rows.
    Raises DataError: missing root or file, not an IDX file, rows that don't match, size below 28, colour.
    """
    root = existing_root(config)
    if config.size < SIDE:
        raise DataError(f"data.size: Morpho-MNIST has {SIDE} x {SIDE} pixels and isn't shrunk, got {config.size}")
    if graph.image and graph[graph.image].channels != 1:
        raise DataError(f"graph '{graph.name}': Morpho-MNIST images have 1 channel")
    parts = [_read_part(root, "train"), _read_part(root, "t10k")]
    table = pd.concat([rows for rows, _ in parts], ignore_index=True)
    n_train, n_test = (len(rows) for rows, _ in parts)
    n_val = round(config.validation_fraction * n_train)
    table["split"] = ["train"] * (n_train - n_val) + ["val"] * n_val + ["test"] * n_test
    images = np.concatenate([pixels for _, pixels in parts])
    paths = table["path"].tolist()
    digest = hashlib.sha256(images.data)
    digest.update(table.to_csv(index=False).encode())

    def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray | Unusable]]:
        return [[constant(images[row], paths[row]) or _pad(images[row], size) for size in sizes] for row in rows]

    about = {"source": config.source, "root": str(root)}
    return Source(f"Morpho-MNIST in '{root}'", about, {"content": digest.hexdigest()}, lambda: table, pixels)


def read_idx(path: Path) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes. Raises DataError: missing, truncated, or another format."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"no file '{path}'; Morpho-MNIST has train-* and t10k-* files") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' is not a whole gzip file: {error}") from None
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise DataError(f"'{path}' is not an IDX file of unsigned bytes: it starts with {content[:4].hex()!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"'{path}' is truncated: {len(content)} bytes are less than its header")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape):
        expected = " x ".join(map(str, shape))
        raise DataError(f"'{path}' is truncated or too long: {len(values)} values, its header says {expected}")
    return values.reshape(shape)


def _read_part(root: Path, part: str) -> tuple[pd.DataFrame, np.ndarray]:
    image_path = root / f"{part}-images-idx3-ubyte.gz"
    images = read_idx(image_path)
    labels = read_idx(root / f"{part}-labels-idx1-ubyte.gz")
    morphology = read_table(root / f"{part}-morpho.csv")
    for column in ("thickness", "intensity"):
        if column not in morphology.columns:
            raise DataError(f"table '{root / f'{part}-morpho.csv'}' has no column '{column}'")
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"'{image_path}': expected images of {SIDE} x {SIDE}, got {images.shape[1:]}")
    if not len(images) == len(labels) == len(morphology):
        counts = f"{len(images)} images, {len(labels)} labels, {len(morphology)} table rows"
        raise DataError(f"Morpho-MNIST part '{part}' in '{root}' doesn't match: {counts}")
    rows = pd.DataFrame(
        {
            "path": [f"{image_path.name}#{i}" for i in range(len(images))],
            "patient_id": [f"{part}-{i}" for i in range(len(images))],  # no two digits are said to share a writer
            "digit": [str(label) for label in labels],
            "thickness": morphology["thickness"],
            "intensity": morphology["intensity"],
        }
    )
    return rows, images


def _pad(image: np.ndarray, size: int) -> np.ndarray:
    before = (size - SIDE) // 2
    return np.pad(image, (before, size - SIDE - before))[None]
