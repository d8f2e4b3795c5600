"""What every reader of image files asks first: root, channels, where files lie and whether they have changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from causalcxr.data.config import DataConfig, expand
from causalcxr.data.images import MODES
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError

__all__ = ["channels_of", "existing_root", "fingerprint", "locate"]


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


def locate(root: Path, names: Sequence[str]) -> list[Path]:
    """The file of each name below `root`: as written if it is there, else with `/` for a backslash and in another
    case, as a table from Windows may have it, if one file fits. Where none or several do, as written.
    """
    entries: dict[Path, dict[str, list[str]]] = {}
    return [_located(root, name, entries) for name in names]


def _located(root: Path, name: str, entries: dict[Path, dict[str, list[str]]]) -> Path:
    file = root / name
    if _is_there(file):
        return file
    place = root
    for part in PurePosixPath(name.replace("\\", "/")).parts:
        if not _is_there(place / part):
            alike = _by_folded_name(place, entries).get(part.casefold(), [])
            if len(alike) != 1:
                return file
            part = alike[0]
        place = place / part
    return place


def _is_there(file: Path) -> bool:
    try:
        return bool(file.stat())
    except (OSError, ValueError):  # missing, or no name that a file can have
        return False


def _by_folded_name(folder: Path, entries: dict[Path, dict[str, list[str]]]) -> Mapping[str, list[str]]:
    """The entries of a folder by their names without case; each folder is listed once."""
    if folder not in entries:
        found: dict[str, list[str]] = {}
        for entry in folder.iterdir() if folder.is_dir() else ():
            found.setdefault(entry.name.casefold(), []).append(entry.name)
        entries[folder] = found
    return entries[folder]


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
