"""What every room does with files: write then rename, digests, listing, some of many names.

Imports nothing of this package but its errors and no heavy library, so that any room may import it. What a data set is
stands in :mod:`nnunet_covid.nnunet.dataset`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_covid.disturbances import alone
from nnunet_covid.errors import UserError

MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""In the names of unfinished files: numbers of processes mean something on their machine only."""
UNFINISHED = ".partial."
"""In front of the names of unfinished files: hidden, so that nobody takes one for a case."""
CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that Windows leaves in folders of pictures."""
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
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


def to_disk(folder: Path) -> None:
    """Force the files of a folder and its folders to the disk, whoever wrote them."""
    for path in files_in(folder, below=True):
        with path.open("r+b") as stream:
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
            digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode(errors="surrogatepass"))
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


def own_name(path: Path) -> str:
    """What a file or folder is called, though it be given as ``.`` or ``..``; as :func:`printable`."""
    return printable(os.path.basename(os.path.abspath(path)))


def names_apart(names: Iterable[str], plain: Callable[[str], str]) -> dict[str, str]:
    """What each name becomes in the name of a file, numbered where two would be the same, capitals aside."""
    found: dict[str, str] = {}
    for name in names:
        number, file = 1, plain(name)
        while file.casefold() in {other.casefold() for other in found.values()}:
            number += 1
            file = f"{plain(name)}_{number}"
        found[name] = file
    return found


def name_fault(path: Path) -> str | None:
    """Why a file cannot be given to SimpleITK, which ends the whole process at a name that is no UTF-8; else None."""
    foreign = printable(str(path)) != str(path)
    return "its name, or its folder's, is not in UTF-8; rename it" if foreign else None


def printable(text: str) -> str:
    """A text that UTF-8 can hold: bytes of a file's name that are none of UTF-8 become ``\\udcXX``."""
    return text.encode(errors="backslashreplace").decode()


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
