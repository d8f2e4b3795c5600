"""What every reader of image files asks first: root, channels, where files lie and whether they have changed."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
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


def locate(root: Path, names: Sequence[str]) -> list[str]:
    """The names of files below `root` as they lie there, of `names` as a table has them.

    A name that isn't there is read with `/` for a backslash and in another case, as tables from Windows need, if
    one file fits and the table writes it in one way alone: two films may differ in case. Else it stays as it is.
    """
    missing = {name: name.replace("\\", "/") for name in dict.fromkeys(names) if not _is_there(root / name)}
    if not missing:
        return list(names)
    ways: dict[str, set[str]] = {}
    for name in dict.fromkeys(names):
        way = name.replace("\\", "/")
        ways.setdefault(way.casefold(), set()).add(way)
    entries: dict[Path, dict[str, list[Path]]] = {}
    found = {
        name: _in_another_case(root, way, entries)
        for name, way in missing.items()
        if len(ways[way.casefold()]) == 1
    }
    return [found.get(name) or name for name in names]


def _in_another_case(root: Path, name: str, entries: dict[Path, dict[str, list[Path]]]) -> str | None:
    """The one file below `root` that has this name but for its case."""
    places = [root]
    for part in PurePosixPath(name).parts:
        places = [found for place in places for found in _entries(place, part, entries)]
    files = [place for place in places if _is_there(place)]
    return files[0].relative_to(root).as_posix() if len(files) == 1 and name[:1] != "/" else None


def _entries(folder: Path, name: str, entries: dict[Path, dict[str, list[Path]]]) -> list[Path]:
    """What a folder has under a name in any case; each folder is listed once."""
    if name == "..":
        return [folder / name]
    if folder not in entries:
        entries[folder] = {}
        with suppress(OSError):  # no folder, or one that can't be read
            for entry in folder.iterdir():
                entries[folder].setdefault(entry.name.casefold(), []).append(entry)
    return entries[folder].get(name.casefold(), [])


def _is_there(file: Path) -> bool:
    try:
        return bool(file.stat())
    except (OSError, ValueError):  # missing, or no name that a file can have
        return False


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
