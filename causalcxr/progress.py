"""Progress bars with an estimate of the time left; quiet lines where there is no terminal."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar"]

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_bar(what: str, total: int, done: int = 0, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar of `total` steps; calls to what it yields advance it by one and set the note behind it."""
    if not shown:
        yield lambda note: None
    elif sys.stderr.isatty():
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        columns += [TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(what, total=total, completed=done, note="")
            yield lambda note: progress.update(task, advance=1, note=note)
    else:
        yield _line_writer(what, total, done)


def _line_writer(what: str, total: int, done: int) -> Callable[[str], None]:
    begun = last = time.monotonic()
    count = done

    def advance(note: str) -> None:
        nonlocal last, count
        count += 1
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES or count == total:
            last = now
            left = (now - begun) / (count - done) * (total - count)
            log.info("%s: %d of %d, about %d s left %s", what, count, total, round(left), note)

    return advance
