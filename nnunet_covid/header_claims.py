"""What the header of an image promises, held against the size of its file before memory is asked for.

Readers allocate what a header says. A damaged or hostile one of a few hundred bytes may say terabytes, and a reader
that fills what is missing with zeros then takes all memory of the machine.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.volume_files import data_files
from nnunet_covid.volume_headers import fault_of_number_of_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

GZIP = 1032
"""No more bytes come out of one byte of deflate (zlib's technical notes)."""
ANY_COMPRESSION = 10_000
"""Blank images by JPEG-LS, JPEG 2000 or LZW."""
BITS_OF_A_BYTE = 8
"""Voxels in a byte of an uncompressed DICOM segmentation or TIFF mask."""
HEAD = 4096
"""Bytes in which a header says how its voxels are stored."""
COMPRESSED_HEADER = re.compile(rb"CompressedData *= *True|encoding: *(?:gz|gzip|bz2|bzip2)", re.IGNORECASE)
COMPRESSED_DICOM = re.compile(rb"1\.2\.840\.10008\.1\.2\.(?:4\.|5|1\.99)")
FAX = {2, 3, 4}
"""TIFF compressions that write a blank row in a bit."""


def false_claim(path: Path) -> str | None:
    """Why a file cannot hold what its header promises; ``None`` where it can, or no reader knows the header.

    Args:
        path: a volume or DICOM file that ITK reads, or a TIFF; Pillow bounds the pixels of other pictures itself.
    """
    if path.name.lower().endswith((".tif", ".tiff")):
        return _false_claim_of_tiff(path)
    if fault := fault_of_number_of_axes(path):
        return fault
    import SimpleITK as sitk

    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    try:
        header.ReadImageInformation()
    except RuntimeError:
        return None
    return false_claim_of(header, path)


def false_claim_of(header: Any, path: Path) -> str | None:
    """As :func:`false_claim`, of an ITK reader that has read the header."""
    return _compared(header.GetSize(), header.GetNumberOfComponents(), *_stored(path))


def read_probabilities(path: Path) -> NDArray[Any]:
    """The array ``probabilities`` of a file that nnU-Net's ``--save_probabilities`` or ``--npz`` has written.

    Raises:
        UserError: If the file cannot be read, holds no such array, or promises more than it can hold.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            entry = archive.zip.getinfo("probabilities.npy")
            with archive.zip.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, kind = read(stream)
            if claim := _compared(shape, kind.itemsize, min(entry.file_size, GZIP * entry.compress_size), 1):
                raise UserError(f"{path}: {claim}")
            return np.asarray(archive["probabilities"])
    except UserError:
        raise
    except KeyError as e:
        message = f"{path}: has no array 'probabilities' (was it written by --save_probabilities?)"
        raise UserError(message) from e
    except Exception as e:  # zipfile, zlib and numpy each have their own for damaged bytes
        raise UserError(f"{path}: cannot be read ({reason_of(e)}); predict it again") from e


def _stored(path: Path) -> tuple[int, int]:
    """Bytes on disk behind a header, and how many voxels a byte of them can hold."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head.startswith(b"\x1f\x8b"):
        return size, GZIP
    if head[128:132] == b"DICM":
        return size, ANY_COMPRESSION if COMPRESSED_DICOM.search(head) else BITS_OF_A_BYTE
    beside = [file for file in data_files(path) if file.is_file()]
    size += sum(file.stat().st_size for file in beside)
    if path.name.lower().endswith((".nii", ".hdr")):
        return size, GZIP if any(file.suffix == ".gz" for file in beside) else 1
    text = head.startswith(b"NRRD") or b"DimSize" in head
    return size, 1 if text and not COMPRESSED_HEADER.search(head) else ANY_COMPRESSION


def _compared(lengths: Any, components: int, size: int, most: int) -> str | None:
    if math.prod(lengths) * components <= 0:
        return "its header promises no voxels at all; export it again"
    if math.prod(lengths) * components <= size * most:
        return None
    times = "×".join(str(length) for length in lengths)
    return f"its header promises {times} voxels, but the file has only {size} bytes; copy or export it again"


def _fault_of_directories(path: Path) -> str | None:
    """Whether the chain of a TIFF's directories, one a page, ends, and none is larger than the file.

    Readers follow it to its end, which takes hours in some damaged files. Layout: TIFF 6.0, section 2.
    """
    content = path.read_bytes()
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None  # BigTIFF, or no TIFF at all
    seen: set[int] = set()
    offset = struct.unpack_from(f"{order}I", content, 4)[0] if len(content) >= 8 else 0
    while offset:
        damaged = "its directory of pages is damaged; export it again"
        if offset in seen or offset + 2 > len(content):
            return damaged
        end = offset + 2 + 12 * struct.unpack_from(f"{order}H", content, offset)[0]
        if end + 4 > len(content):
            return damaged
        counts = [struct.unpack_from(f"{order}I", content, at + 4)[0] for at in range(offset + 2, end, 12)]
        if any(count > len(content) for count in counts):
            return damaged
        seen.add(offset)
        offset = struct.unpack_from(f"{order}I", content, end)[0]
    return None


def _false_claim_of_tiff(path: Path) -> str | None:
    import tifffile

    if fault := _fault_of_directories(path):
        return fault
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            compression = int(series.keyframe.compression)
            most = {1: BITS_OF_A_BYTE}.get(compression, ANY_COMPRESSION * (10 if compression in FAX else 1))
            return _compared(series.shape, 1, path.stat().st_size, most)
    except Exception:  # no TIFF: whoever reads it says so
        return None
