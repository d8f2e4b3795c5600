"""The folder of a study: nothing else is in it, and one process at a time works on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from causalcxr.support.errors import RunError

__all__ = ["study_folder"]


@contextmanager
def study_folder(folder: Path) -> Iterator[None]:
    """Makes the folder, and holds it. It is a study's by its `study.yaml`, which is written first.

    Raises RunError: it holds something else, can't be made, or another process works on it.
    """
    there = [inner for inner in folder.iterdir() if not inner.name.startswith(".")] if folder.is_dir() else []
    if there and not (folder / "study.yaml").exists():
        raise RunError(f"run '{folder}' holds something else; choose another folder or delete it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"run '{folder}' can't be made a folder ({error.strerror}); choose another") from None
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"another process works on the study '{folder}'; wait, or choose another run=") from None
    try:
        yield
    finally:
        lock.release()
