"""A folder of image files with a CSV that names and describes them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from causalcxr.data.config import DataConfig
from causalcxr.data.files import channels_of, existing_root, fingerprint, locate
from causalcxr.data.images import read_sizes
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import find_columns, read_table
from causalcxr.graph import Graph

__all__ = ["folder_source"]


def folder_source(config: DataConfig, graph: Graph) -> Source:
    """Images named by a column of `root/table`. Paths are relative to root; absolute ones are taken as they are.
    Backslashes and another case than the files have are understood.

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
    names = locate(root, [name.strip() for name in table[columns["path"]]])
    table, files = table.assign(**{columns["path"]: names}), [root / name for name in names]
    key["files"] = fingerprint(files)

    def pixels(rows: Sequence[int], sizes: Sequence[int]) -> list[list[np.ndarray | Unusable]]:
        return [read_sizes(files[row], sizes, channels) for row in rows]

    return Source(where, _about(config, root), key, lambda: table, pixels)


def _about(config: DataConfig, root: Path) -> dict[str, str]:
    return {"source": config.source, "root": str(root), "table": config.table}
