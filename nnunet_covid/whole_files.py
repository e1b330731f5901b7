"""Whether a file is there as a whole, as far as its format tells: damaged ones, and those a full disk has cut short."""

from __future__ import annotations

import errno
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_covid.volume_files import data_files
from nnunet_covid.volume_headers import opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

NIFTI_ENDINGS = (".gz", ".nii", ".hdr")
GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 352  # of NIfTI-1, with the four bytes that announce extensions
MAGIC = (b"n+1\0", b"ni1\0")  # one file, or a pair
SIZE_MODULUS = 1 << 32  # gzip keeps 32 bits of the size (RFC 1952, §2.3.1)
BLOCK = 1 << 20


def is_whole(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether nothing of a file is missing or damaged, as far as its format tells.

    ITK reads what is missing or damaged in a NIfTI file as zeros, without an error. A good file is known by the
    checksum at its end, at a small part of the time that reading it takes. A file that neither is compressed by gzip
    nor has a header of NIfTI-1 counts as whole: ITK itself refuses NRRD and MetaImage files that are cut short, and
    of a pair whose voxels are not compressed the header tells (:mod:`nnunet_covid.volume_files`).

    Args:
        path: the file.
        voxels: what ITK read from it. A file is unpacked once more only where the checksum of its header and
            these is not the one at its end.

    Raises:
        OSError: if the file cannot be opened.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        return True
    beside = data_files(path)
    file = beside[0] if beside else path
    with file.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    if not start.startswith(GZIP_MAGIC):
        return bool(beside) or path.stat().st_size >= max(HEADER_BYTES, _announced_bytes(start))
    try:
        return _has_checksum_of(file, voxels) or _unpacked_to_its_end(file, path)
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


def _unpacked_to_its_end(path: Path, header: Path) -> bool:
    """Whether all members of the file can be unpacked and hold as much as the header, in it or beside it, announces."""
    with opened(header) as content:
        announced = _announced_bytes(content.read(HEADER_BYTES))
    size = 0
    with gzip.open(path) as content:
        while chunk := content.read(BLOCK):
            size += len(chunk)
    return size >= announced


def _announced_bytes(header: bytes) -> int:
    """Size of the unpacked file of the voxels by their header; 0 if that is not one of NIfTI-1."""
    if header[344:348] not in MAGIC:
        return 0
    order = "<" if struct.unpack_from("<i", header) == (348,) else ">"
    axes, *lengths = struct.unpack_from(f"{order}8h", header, 40)
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    (offset,) = struct.unpack_from(f"{order}f", header, 108)
    return int(offset) + math.prod(lengths[: max(0, axes)]) * bits // 8 if math.isfinite(offset) else 0
