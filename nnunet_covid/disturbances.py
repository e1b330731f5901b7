"""What disturbs a run from outside: a second process at the same work, and a disk that is full.

How files are written so that a killed process leaves no half of one stands in :mod:`nnunet_covid.files`.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_covid.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTLE_SPACE = 32 * 2**20
"""Bytes; below this a failed write is put down to a full disk whatever the library called it."""
SAME_COMMAND = "give the same command again"


@contextmanager
def alone(lock: Path, work: str, remedy: str) -> Iterator[None]:
    """Keep a second process away; the lock ends with the process, however that ends, and its file goes.

    Args:
        lock: The file; its folder exists.
        work: What only one process may be at work on.
        remedy: Beside waiting.

    Raises:
        UserError: If another process holds it.
    """
    found = FileLock(lock, blocking=False)
    try:
        found.acquire()
        if not lock.exists():  # its last holder has just removed the file that was locked here
            found.release()
            found.acquire()
    except Timeout as e:
        raise UserError(f"another process is at work on {work}; wait for it, or {remedy}") from e
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps an open file
            lock.unlink()
        found.release()


@contextmanager
def full_disk_told(*places: Path, then: str = SAME_COMMAND) -> Iterator[None]:
    """Turn the many errors of a full disk into one line.

    Args:
        places: Folders that are written into; the first is named where the error names none.
        then: What goes on with the work when there is room.

    Raises:
        UserError: If it is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        place = full_place(e, places)
        if place is None:
            raise
        raise UserError(f"the disk of {place} is full; nothing is lost: make room and {then}") from e


def full_place(error: BaseException, places: Sequence[Path]) -> Path | None:
    """Where the disk is full, if that is why a write failed; None if it is not."""
    if isinstance(error, OSError) and error.errno in FULL:
        return Path(error.filename) if error.filename else places[0]
    for place in places:
        if place.exists() and shutil.disk_usage(place).free < LITTLE_SPACE:
            return place
    return None
