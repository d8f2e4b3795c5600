"""A folder of image files with a CSV that names and describes them."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from causalcxr.data.config import DataConfig, expand
from causalcxr.data.images import MODES, read_sizes
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import find_columns, read_table
from causalcxr.errors import DataError
from causalcxr.graph import Graph

__all__ = ["channels_of", "existing_root", "fingerprint", "folder_source"]


def folder_source(config: DataConfig, graph: Graph) -> Source:
    """Images named by a column of `root/table`. Paths are relative to root; absolute ones are taken as they are.

    Raises DataError: missing root or table, a column that isn't there, an image of other than 1 or 3 channels.
    """
    root = existing_root(config)
    path = root / config.table
    table = read_table(path)
    where = f"table '{path}'"
    columns = find_columns(config, graph, table, where)
    key: dict[str, str] = {"table": hashlib.sha256(path.read_bytes()).hexdigest()}
    channels = channels_of(graph)
    if not channels:
        return Source(where, _about(config, root), key, lambda: table, lambda rows, sizes: [])
    files = [root / name.strip() for name in table[columns["path"]]]
    key["files"] = fingerprint(files)

    def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray | Unusable]]:
        return [read_sizes(files[row], sizes, channels) for row in rows]

    return Source(where, _about(config, root), key, lambda: table, pixels)


def existing_root(config: DataConfig) -> Path:
    """The folder `data.root`. Raises DataError if it isn't set or isn't there."""
    if not config.root:
        raise DataError(f"data.root is empty; set it to the folder of the source '{config.source}'")
    root = expand(config.root)
    if not root.is_dir():
        unset = "; its environment variable is not set" if "$" in str(root) else ""
        raise DataError(f"data.root: no folder '{root}'{unset}")
    return root


def channels_of(graph: Graph) -> int:
    """Channels of the graph's image, 0 without one. Raises DataError: other than 1 or 3."""
    if not graph.image:
        return 0
    channels = graph[graph.image].channels
    if channels not in MODES:
        raise DataError(f"graph '{graph.name}': an image file gives 1 or 3 channels, not {channels}")
    return channels


def _about(config: DataConfig, root: Path) -> dict[str, str]:
    return {"source": config.source, "root": str(root), "table": config.table}


def fingerprint(files: Iterable[Path]) -> str:
    """Size and time of every file: images added or replaced later make another cohort."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
            digest.update(f"{status.st_size}:{status.st_mtime_ns};".encode())
        except (OSError, ValueError):  # missing, or no name that a file can have; reading it says so
            digest.update(b"missing;")
    return digest.hexdigest()
