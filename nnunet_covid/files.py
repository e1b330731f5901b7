"""What every room does with files: write then rename, digests, listing, damaged ones, shared work, some of many names.

Imports nothing of this package but its errors and no heavy library, so that any room may import it. What a data set is
stands in :mod:`nnunet_covid.nnunet.dataset`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nnunet_covid.disturbances import alone
from nnunet_covid.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Task = TypeVar("Task")
Result = TypeVar("Result")

MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""In the names of unfinished files: numbers of processes mean something on their machine only."""
UNFINISHED = ".partial."
"""In front of the names of unfinished files: hidden, so that nobody takes one for a case."""
CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that Windows leaves in folders of pictures."""
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
LONGEST_CHUNK = 8
"""Tasks handed to a process at once: handing over single slices would cost as much as the work on them."""
NIFTI_ENDINGS = (".gz", ".nii")
GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 352  # of NIfTI-1, with the four bytes that announce extensions
SINGLE_FILE = b"n+1\0"
SIZE_MODULUS = 1 << 32  # gzip keeps 32 bits of the size (RFC 1952, §2.3.1)
BLOCK = 1 << 20


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
    unfinished = path.with_name(f"{UNFINISHED}{MACHINE}-{os.getpid()}.{path.name}")
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


def remove_abandoned(folder: Path, age: float = 3600.0, names: Collection[str] | None = None) -> None:
    """Delete the unfinished files of processes that were killed.

    Args:
        folder: Where :func:`replacing` wrote.
        age: Seconds since the last change after which a file is nobody's, although its process may run on another
            machine: another process may be at work in the same folder.
        names: Only those that would have become these files, if given.
    """
    for path in folder.glob(f"{UNFINISHED}*"):
        if names is not None and path.name.removeprefix(UNFINISHED).partition(".")[2] not in names:
            continue
        with contextlib.suppress(FileNotFoundError):  # its process has just finished it
            if _process_has_ended(path) or path.stat().st_mtime <= time.time() - age:
                path.unlink()


def _process_has_ended(unfinished: Path) -> bool:
    """Whether the process of an unfinished file ran on this machine and is no more."""
    machine, _, number = unfinished.name.removeprefix(UNFINISHED).partition(".")[0].partition("-")
    if machine != MACHINE or not number.isdecimal() or os.name != "posix":  # elsewhere the signal would end it
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it belongs to somebody else
    return False


def unfinished_folder(folder: Path) -> Path:
    """The hidden folder in which ``folder`` comes about; the next run finds what an interrupted one left in it."""
    return folder.with_name(f".{folder.name}.partial")


def lock_of(folder: Path) -> Path:
    """Held by whoever fills :func:`unfinished_folder`."""
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Fill an empty hidden folder, which becomes ``folder`` when all went well; otherwise nothing is left.

    Raises:
        UserError: If another process is at work on it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(lock_of(folder), str(folder), "name another output"):
        unfinished = unfinished_folder(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
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


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object that a program keeps for itself; ``None`` if there is none, or only a part of one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's visible file names and their SHA-256 (a DICOM series)."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_in(path, below=True):
            digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_of(content: Any, digits: int) -> str:
    """The first digits of the SHA-256 of anything that JSON holds, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:digits]


def is_hidden(path: Path) -> bool:
    """Whether a file is none of the user's data: macOS's companions ``._*``, other dotfiles, Windows' ``Thumbs.db``."""
    return path.name.startswith(".") or path.name in CLUTTER


def files_in(folder: Path, ending: str = "", *, below: bool = False) -> list[Path]:
    """The files of a folder in the order of their names; hidden ones and links to a folder above are passed over.

    A link to nothing counts as a file, so that whoever reads it says that it cannot be read.

    Args:
        folder: An empty list where there is none.
        ending: Of the file names.
        below: Those of its folders, too.
    """
    found: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if is_hidden(path):
            continue
        if path.is_file() or (path.is_symlink() and not path.exists()):
            found += [path] * path.name.endswith(ending)
        elif below and not (path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}):
            found += files_in(path, ending, below=True)
    return found


def stays_below(place: object, *, one_name: bool = False) -> bool:
    """Whether a path that a foreign document gives leads nowhere but below the folder that it is taken in.

    Args:
        place: As it stands there; anything but text leads elsewhere.
        one_name: It must be the name of a file or folder, too, not a way through folders.
    """
    if not isinstance(place, str) or not place or "\0" in place:
        return False
    parts = place.replace("\\", "/").split("/")
    return not ({"", "..", "."} & set(parts) or ":" in parts[0]) and not (one_name and len(parts) > 1)


def is_whole(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether nothing of a file is missing or damaged, as far as its format tells.

    ITK reads what is missing or damaged in a NIfTI file as zeros, without an error. A good file is known by the
    checksum at its end, at a small part of the time that reading it takes. A file that neither is compressed by gzip
    nor has a header of NIfTI-1 counts as whole: ITK itself refuses NRRD and MetaImage files that are cut short.

    Args:
        path: the file.
        voxels: what ITK read from it. A file is unpacked once more only where the checksum of its header and
            these is not the one at its end.

    Raises:
        OSError: if the file cannot be opened.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        return True
    with path.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    if not start.startswith(GZIP_MAGIC):
        return path.stat().st_size >= max(HEADER_BYTES, _announced_bytes(start))
    try:
        return _has_checksum_of(path, voxels) or _unpacked_to_its_end(path)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False


def require_written(unfinished: Path, voxels: NDArray[Any], path: Path) -> None:
    """Nothing of what was to become ``path`` is missing; of NIfTI files ITK does not tell when the disk is full.

    Raises:
        OSError: If it is.
    """
    if not unfinished.is_file() or not is_whole(unfinished, voxels):
        raise OSError(errno.EIO, "it could not be written as a whole: is the disk full?", str(path))


def _has_checksum_of(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether the checksum at the end of the file is that of some header and these voxels behind it."""
    with path.open("rb") as stream:
        stream.seek(-8, 2)
        checksum, size = struct.unpack("<II", stream.read())
    before_voxels = (size - voxels.nbytes) % SIZE_MODULUS
    if before_voxels > BLOCK:
        return False
    with gzip.open(path) as content:
        header = content.read(before_voxels)
    return bool(zlib.crc32(voxels.data, zlib.crc32(header)) == checksum)


def _unpacked_to_its_end(path: Path) -> bool:
    """Whether all members of the file can be unpacked and hold as much as the header announces."""
    with gzip.open(path) as content:
        header = content.read(HEADER_BYTES)
        size = len(header)
        while chunk := content.read(BLOCK):
            size += len(chunk)
    return size >= _announced_bytes(header)


def _announced_bytes(header: bytes) -> int:
    """Size of the unpacked file by its header; 0 if that is not one of NIfTI-1 with the voxels in the same file."""
    if len(header) < HEADER_BYTES or header[344:348] != SINGLE_FILE:
        return 0
    order = "<" if struct.unpack_from("<i", header) == (348,) else ">"
    axes, *lengths = struct.unpack_from(f"{order}8h", header, 40)
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    (offset,) = struct.unpack_from(f"{order}f", header, 108)
    return int(offset) + math.prod(lengths[: max(0, axes)]) * bits // 8 if math.isfinite(offset) else 0


def writable_folder(folder: Path) -> Path:
    """Make a folder if need be and try whether a file can be made in it, before any work.

    Raises:
        UserError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            remove_abandoned(folder)
            return folder
    except OSError as e:
        raise UserError(f"{folder} cannot be written into ({e.strerror}); name another folder") from e


def environment_folder(variable: str) -> Path | None:
    """One of nnU-Net's folders, ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``; ``None`` if not set."""
    value = os.environ.get(variable)
    return Path(value) if value else None


def environment_folders() -> list[Path]:
    """Those of nnU-Net's folders that are set."""
    return [folder for variable in NNUNET_FOLDERS if (folder := environment_folder(variable))]


def counted(number: int, one: str) -> str:
    """How many there are of what has a regular plural."""
    return f"{number} {one}{'s' * (number != 1)}"


def some_of(names: Iterable[str], at_most: int = 5) -> str:
    """The first of some names in their order, and how many more there are: ``a, b and 3 more``."""
    ordered = sorted(names)
    more = f" and {len(ordered) - at_most} more" if len(ordered) > at_most else ""
    return ", ".join(ordered[:at_most]) + more


def evenly_spread(total: int, at_most: int) -> list[int]:
    """Up to ``at_most`` of the numbers 0 to ``total`` − 1, spread evenly, the first and the last among them."""
    count = min(total, at_most)
    step = (total - 1) / max(1, count - 1)
    return sorted({round(index * step) for index in range(count)})


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
