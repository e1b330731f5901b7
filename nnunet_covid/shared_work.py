"""Work that several processes share, in order, and that ends with the process that asked for it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from nnunet_covid.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

LONGEST_CHUNK = 8
"""Tasks handed to a process at once: handing over single slices would cost as much as the work on them."""


def map_in_processes(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """The results in the order of the tasks; with one process, or one task, in this process.

    The processes end with the one that started them, even where that is killed. Where a task fails, or the results are
    not asked for any more, tasks that have not begun are dropped.

    Args:
        work: Can be pickled, as can tasks and results.
        tasks: What to do.
        processes: How many share the work.
        prepare: Called once in each new process.

    Raises:
        UserError: If a process was killed.
    """
    if processes <= 1 or len(tasks) < 2:
        yield from map(work, tasks)
        return
    # Fresh interpreters, on every platform: a fork of a process in which torch or ITK has started threads may hang.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, min(LONGEST_CHUNK, len(tasks) // (4 * processes)))
    count = min(processes, len(tasks))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(prepare,)) as executor:
        try:
            yield from executor.map(work, tasks, chunksize=chunk)
        except BrokenProcessPool as e:
            message = "a process was killed, most likely for lack of memory: use fewer processes"
            raise UserError(message) from e
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(prepare: Callable[[], None] | None) -> None:
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # ITK asks for it when it is first used
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    """A killed parent cannot tell its processes to end; without this they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
