"""What every room does with files: write then rename, digests, listing, shared work, some of many names.

Imports nothing of this package but its errors and no heavy library, so that any room may import it. Whether a NIfTI
file is whole stands in :mod:`nnunet_covid.whole_nifti`, what a data set is in :mod:`nnunet_covid.nnunet.dataset`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from nnunet_covid.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

UNFINISHED = ".partial."
"""In front of the names of unfinished files: hidden, so that nobody takes one for a case."""
CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that Windows leaves in folders of pictures."""
LONGEST_CHUNK = 8
"""Tasks handed to a process at once: handing over single slices would cost as much as the work on them."""


@contextmanager
def replacing(path: Path, endings: Sequence[str] = ("",)) -> Iterator[Path]:
    """Write under a temporary name, which becomes ``path`` when all went well; otherwise nothing is left.

    The temporary name stands in the same folder, belongs to this process and ends as ``path`` does: libraries choose
    the format by the ending.

    Args:
        path: The file to write; its folder exists.
        endings: Where several files make one thing, what stands behind ``path`` in their names; renamed in this order.

    Yields:
        What to write in its stead, without the ``endings``.
    """
    unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}.{path.name}")
    parts = [(unfinished.with_name(unfinished.name + end), path.with_name(path.name + end)) for end in endings]
    for part, _ in parts:
        part.unlink(missing_ok=True)  # of a killed process that had the same number
    try:
        yield unfinished
        for part, final in parts:
            os.replace(part, final)
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)


def remove_abandoned(folder: Path, age: float = 3600.0) -> None:
    """Delete the unfinished files of processes that were killed.

    Args:
        folder: Where :func:`replacing` wrote.
        age: Seconds since the last change after which a file is nobody's: another process may be at work in
            the same folder.
    """
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.stat().st_mtime <= time.time() - age:
            path.unlink(missing_ok=True)


def unfinished_folder(folder: Path) -> Path:
    """The hidden folder in which ``folder`` comes about; the next run finds what an interrupted one left in it."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Fill an empty hidden folder, which becomes ``folder`` when all went well; otherwise nothing is left."""
    unfinished = unfinished_folder(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file, UTF-8, so that a reader sees the old one or the new one.

    Args:
        path: Where.
        text: Its line ends are written as they are.
        durable: Force it to the disk before it takes the old one's place.
    """
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def write_json(path: Path, content: Any, *, indent: int | None = 2, durable: bool = False) -> None:
    """Write a JSON document and a line end as :func:`write_text` does."""
    write_text(path, json.dumps(content, indent=indent) + "\n", durable=durable)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's visible file names and their SHA-256 (a DICOM series)."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_in(path, below=True):
            digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(content: Any, digits: int) -> str:
    """The first digits of the SHA-256 of anything that JSON holds, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:digits]


def is_hidden(path: Path) -> bool:
    """Whether a file is none of the user's data: macOS's companions ``._*``, other dotfiles, Windows' ``Thumbs.db``."""
    return path.name.startswith(".") or path.name in CLUTTER


def files_in(folder: Path, ending: str = "", *, below: bool = False) -> list[Path]:
    """The files of a folder in the order of their names; hidden files and folders are passed over.

    Args:
        folder: An empty list where there is none.
        ending: Of the file names.
        below: Those of its folders, too.
    """
    found: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if is_hidden(path):
            continue
        if path.is_file():
            found += [path] * path.name.endswith(ending)
        elif below:
            found += files_in(path, ending, below=True)
    return found


def writable_folder(folder: Path) -> Path:
    """Make a folder if need be and try whether a file can be made in it, before any work.

    Raises:
        UserError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as e:
        raise UserError(f"{folder} cannot be written into ({e.strerror}); name another folder") from e


def environment_folder(variable: str) -> Path | None:
    """One of nnU-Net's folders, ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``; ``None`` if not set."""
    value = os.environ.get(variable)
    return Path(value) if value else None


def some_of(names: Iterable[str], at_most: int = 5) -> str:
    """The first of some names in their order, and how many more there are: ``a, b and 3 more``."""
    ordered = sorted(names)
    more = f" and {len(ordered) - at_most} more" if len(ordered) > at_most else ""
    return ", ".join(ordered[:at_most]) + more


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
