"""Where a cohort is built: in a working folder beside its place, moved there whole, taken up after a kill."""

import json
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from causalcxr.data.shared_pixels import SharedPixelsError
from causalcxr.support.errors import DataError

__all__ = ["WorkingFolder", "built_by", "lock", "remove_leftovers", "working_folder"]

log = logging.getLogger(__name__)

BUILDING = ".building-"  # prefix of working folders


@dataclass(frozen=True)
class WorkingFolder:
    """The working folder of one cohort of images of `size` pixels; `key` is a hash of all that it depends on."""

    place: Path  # where it belongs
    name: str  # what it is called
    size: int
    key: str

    @property
    def folder(self) -> Path:
        """The working folder itself."""
        return self.place.with_name(f"{BUILDING}{self.place.name}")

    @property
    def cohort(self) -> Path:
        """What will be moved into place."""
        return self.folder / "cohort"

    @property
    def journal(self) -> Path:
        """Notes of the images that are done."""
        return self.folder / "journal.jsonl"


def built_by() -> dict[str, str]:
    """Versions of what makes the content."""
    return {package: version(package) for package in ("causalcxr", "numpy", "pillow")}


@contextmanager
def working_folder(work: WorkingFolder) -> Iterator[None]:
    """Make the working folder, or take up the one of a killed process; move its cohort into place at the end.

    A folder of another key, or of another version of what makes the content, is removed first. After an error it
    is kept only if images in it are done; after a DataError, which would come again, it never is, but for one that
    a setting resolves.
    """
    try:
        _take_up(work)
        yield
        work.cohort.rename(work.place)
    except SharedPixelsError:
        raise
    except DataError:
        _remove(work.folder)
        raise
    except BaseException:  # Ctrl-C too
        if not (work.journal.is_file() and work.journal.stat().st_size):
            _remove(work.folder)
        raise
    _remove(work.folder)


def _take_up(work: WorkingFolder) -> None:
    identity, belongs_to = work.folder / "identity.json", json.dumps({"key": work.key} | built_by())
    whole = identity.is_file() and work.cohort.is_dir()  # no cohort: killed just after it was moved into place
    if not (whole and identity.read_text("utf-8") == belongs_to):
        _remove(work.folder)
        work.cohort.mkdir(parents=True)
        identity.write_text(belongs_to, "utf-8")


def lock(place: Path) -> FileLock:
    """Held by the process that builds the cohort of this place; freed by the system when its process dies."""
    folder = place.with_name(".locks")
    folder.mkdir(exist_ok=True)
    return FileLock(folder / place.name)


def remove_leftovers(parent: Path, keep: Collection[Path]) -> None:
    """Remove the working folders of dead processes, but those for the places in `keep`."""
    for folder in parent.glob(f"{BUILDING}*"):
        place = folder.with_name(folder.name.removeprefix(BUILDING))
        if place not in keep:
            try:
                with lock(place).acquire(timeout=0):
                    _remove(folder)
            except Timeout:
                log.info("another process is preparing %s", place.name)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
