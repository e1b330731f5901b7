"""Processes that share the work and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

LONGEST_CHUNK = 8
"""Tasks handed to a process at once."""


def map_in_processes(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """The results in the order of the tasks; with one worker, or one task, in this process.

    Args:
        work: Can be pickled, as can tasks and results.
        tasks: What to do.
        workers: Number of processes.
    """
    if workers <= 1 or len(tasks) < 2:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # the same on every platform
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as executor:
        chunk = max(1, min(LONGEST_CHUNK, len(tasks) // (4 * workers)))
        yield from executor.map(work, tasks, chunksize=chunk)


def _begin() -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its processes to end; without this they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
