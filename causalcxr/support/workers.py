"""Runs jobs in several processes, one thread each: small networks gain nothing from more threads."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch

from causalcxr.support.errors import TrainingError
from causalcxr.support.progress import progress_bar

__all__ = ["processes_for", "run_jobs"]

Job = TypeVar("Job")


def processes_for(asked: int, device: str) -> int:
    """One a core, or one where a GPU is used, unless somebody asked for a number."""
    if asked:
        return asked
    return 1 if device != "cpu" and torch.cuda.is_available() else len(os.sched_getaffinity(0))


def run_jobs(
    what: str, function: Callable[[Path, Job], Any], folder: Path, jobs: Sequence[Job], done: int, processes: int
) -> None:
    """Call `function(folder, job)` for every job; the bar counts on from `done`.

    An error of a job ends the others that have not begun. Raises TrainingError: a process was killed.
    """
    with progress_bar(what, done + len(jobs), done, shown=bool(jobs)) as advance:
        if processes == 1 or len(jobs) < 2:
            for job in jobs:
                function(folder, job)
                advance(str(getattr(job, "name", "")))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_begin) as pool:
            futures = {pool.submit(function, folder, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    future.result()
                    advance(str(getattr(futures[future], "name", "")))
            except BrokenProcessPool:
                raise TrainingError(
                    f"{what}: a process ended before its time; the same command goes on, with processes=1 in less "
                    "memory (a script of your own must call this below `if __name__ == '__main__':`)"
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def _end_with_parent() -> None:
    """A killed parent can't stop its processes, which would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
