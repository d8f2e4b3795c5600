"""What every reader of image files asks first: the root folder, the channels, and whether files have changed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from causalcxr.data.config import DataConfig, expand
from causalcxr.data.images import MODES
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["channels_of", "existing_root", "fingerprint"]


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
