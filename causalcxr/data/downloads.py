"""Leftovers of interrupted downloads: known by their names, for their size may be whole and their end zeros."""

from pathlib import Path

from causalcxr.data.source import Unusable

__all__ = ["finished_name", "partial_download"]

ENDINGS = (".part", ".partial", ".crdownload", ".download", ".aria2", ".filepart", ".!ut", ".tmp")
AZCOPY = ".azDownload-"  # .azDownload-<id>-<name>


def partial_download(path: Path) -> Unusable | None:
    """Unusable if the name says that the file is no finished one: a downloader's, or hidden.

    Hidden files are the temporary ones of rsync and azcopy, and what macOS leaves beside every file.
    """
    if path.name.startswith(".") or path.name.lower().endswith(ENDINGS):
        return Unusable("partial download", f"'{path}': a leftover by its name; download the film, delete this")
    return None


def finished_name(name: str) -> str:
    """What the file is to be called when it is whole, as far as the name says it."""
    if name.startswith(AZCOPY):
        return name.removeprefix(AZCOPY).partition("-")[2]
    name = name.removeprefix(".~").removeprefix("._").removeprefix(".")
    return name[: -len(Path(name).suffix)] if name.lower().endswith(ENDINGS) else name
