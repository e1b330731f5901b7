"""Many items through three steps: read ahead in threads, compute in this thread, write behind in threads.

There are no processes to start and nothing is pickled. What is on the way is bounded by the memory that it takes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from nnunet_covid.errors import UserError

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")
NICER = 10
"""Added to the niceness of threads that read and write."""
Outcome = tuple[Item, UserError | None]


@dataclass(frozen=True)
class Steps(Generic[Item, Prepared, Result]):
    """What happens to an item.

    Attributes:
        read: In a thread. Its ``UserError`` refuses the item; the others go on.
        compute: In the calling thread, of one or several items: a result, or why there is none, of each.
        write: In a thread. What it raises ends everything.
        cost: Bytes that an item takes until it is written.
    """

    read: Callable[[Item], Prepared]
    compute: Callable[[Sequence[Prepared]], Sequence[Result | UserError]]
    write: Callable[[Item, Result], None]
    cost: Callable[[Item], int]


@dataclass(frozen=True)
class Limits:
    """How much happens at once.

    Attributes:
        memory: Bytes of all items on the way; an item that takes more goes alone.
        readers, writers: Threads.
        at_once: Items that ``compute`` takes together, if as many are ready.
    """

    memory: int = 4 << 30
    readers: int = 1
    writers: int = 1
    at_once: int = 1


def convey(items: Iterable[Item], steps: Steps[Item, Prepared, Result], limits: Limits) -> Iterator[Outcome[Item]]:
    """Take items through all steps; yields each when it is written, or with the reason for which it was refused.

    Raises:
        Exception: What ``write`` raises, and anything but a ``UserError`` of ``read``; what was not begun is dropped.
    """
    pools = (ThreadPoolExecutor(max(1, n), initializer=_stand_back) for n in (limits.readers, limits.writers))
    with next(pools) as reading, next(pools) as writing:
        belt = _Belt(iter(items), steps, limits, reading, writing)
        try:
            yield from belt.run()
        finally:
            for pool in (reading, writing):
                pool.shutdown(wait=False, cancel_futures=True)


def _stand_back() -> None:
    """This thread works when those of the network leave a core: they wait for each other, so for one that lost its."""
    if sys.platform == "linux":  # where threads have a priority of their own
        own = threading.get_native_id()
        with suppress(OSError):  # a container may forbid it
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + NICER))


class _Belt(Generic[Item, Prepared, Result]):
    """The items on the way, in the order in which they came."""

    def __init__(
        self,
        items: Iterator[Item],
        steps: Steps[Item, Prepared, Result],
        limits: Limits,
        reading: ThreadPoolExecutor,
        writing: ThreadPoolExecutor,
    ) -> None:
        self._items = items
        self._steps = steps
        self._limits = limits
        self._reading = reading
        self._writing = writing
        self._next: tuple[Item, int] | None = None  # taken, but too large to be let in yet
        self._ahead: deque[tuple[Item, int, Future[Prepared]]] = deque()
        self._behind: dict[Future[None], tuple[Item, int]] = {}
        self._used = 0

    def run(self) -> Iterator[Outcome[Item]]:
        while True:
            self._let_in()
            yield from self._written(block=not self._ahead)
            if self._ahead:
                yield from self._compute()
            elif not self._behind and self._next is None:
                return

    def _let_in(self) -> None:
        """Begin to read as many items as there is room for."""
        most = 2 * self._limits.readers + self._limits.at_once
        while len(self._ahead) < most:
            if self._next is None:
                item = next(self._items, None)
                if item is None:
                    return
                self._next = item, self._steps.cost(item)
            item, cost = self._next
            if self._used and self._used + cost > self._limits.memory:
                return
            self._next = None
            self._used += cost
            self._ahead.append((item, cost, self._reading.submit(self._steps.read, item)))

    def _compute(self) -> Iterator[Outcome[Item]]:
        """The first of the items that are read, and those behind it that are read, too."""
        group: list[tuple[Item, int]] = []
        prepared: list[Prepared] = []
        while self._ahead and len(group) < self._limits.at_once and (not group or self._ahead[0][2].done()):
            item, cost, future = self._ahead.popleft()
            try:
                prepared.append(future.result())
                group.append((item, cost))
                del future  # it holds the item in memory
            except UserError as e:
                self._used -= cost
                yield item, e
        if not group:
            return
        results = self._steps.compute(prepared)
        prepared.clear()
        for (item, cost), result in zip(group, results, strict=True):
            if isinstance(result, UserError):
                self._used -= cost
                yield item, result
            else:
                self._behind[self._writing.submit(self._steps.write, item, result)] = item, cost

    def _written(self, *, block: bool) -> Iterator[Outcome[Item]]:
        """What is written by now; the next one is waited for where nothing else can be done."""
        if self._behind:
            done, _ = wait(self._behind, timeout=None if block else 0, return_when=FIRST_COMPLETED)
            for future in done:
                item, cost = self._behind.pop(future)
                future.result()
                self._used -= cost
                yield item, None
