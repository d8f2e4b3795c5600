"""Progress bars with an estimate of the time left; quiet lines where there is no terminal."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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


class Advance(Protocol):
    """Moves a bar by `steps` and sets its note."""

    def __call__(self, note: str, steps: int = 1) -> None: ...


@contextmanager
def progress_bar(
    what: str, total: int, done: int = 0, shown: bool = True, last_line: bool = True
) -> Iterator[Advance]:
    """A bar of `total` steps; calls to what it yields advance it, by one or more, and set the note behind it.

    Without a terminal a line is logged now and then, and with `last_line` at the end, however soon that is.
    """
    if not shown:
        yield lambda note, steps=1: None
    elif sys.stderr.isatty():
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        columns += [TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(what, total=total, completed=done, note="")
            yield lambda note, steps=1: progress.update(task, advance=steps, note=note)
    else:
        yield _line_writer(what, total, done, last_line)


def _line_writer(what: str, total: int, done: int, last_line: bool) -> Advance:
    begun = last = time.monotonic()
    count = done

    def advance(note: str, steps: int = 1) -> None:
        nonlocal last, count
        count += steps
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES or (last_line and count == total):
            last = now
            left = (now - begun) / (count - done) * (total - count)
            log.info("%s: %d of %d, about %d s left %s", what, count, total, round(left), note)

    return advance
