"""Reading label maps as nnU-Net's own readers do, with their geometry.

Two of nnU-Net's readers are short-cut, because they go through 32-bit floats that a label map does not need; their axis
order and spacing are kept. Every other format goes through nnU-Net's reader itself. SimpleITK and nnunetv2 are imported
only when a file calls for them: processes that score PNG slices start in half the time.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.geometry import Geometry
from nnunet_covid.header_claims import GZIP, false_claim
from nnunet_covid.label_maps import Labels, distinct_values, whole_numbers
from nnunet_covid.volume_files import header_fault, known_refusal

# The readers of the two commonest endings, so that nnunetv2 need not be imported for them. Tests hold this against it.
COMMON_READERS = {".png": "NaturalImage2DIO", ".nii.gz": "SimpleITKIO"}
# A PNG begins with its signature, length and name of the first chunk, and that chunk's 13 bytes, which for the plainest
# kind end with bit depth 8, colour type 0 (grey), the only compression and filter method there is, not interlaced (PNG
# specification, §11.2.1).
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN_GREY = bytes([8, 0, 0, 0, 0])


@dataclass(frozen=True)
class LabelFormat:
    """A file ending and the name of nnU-Net's reader for it."""

    ending: str
    reader: str


def label_format(dataset_json: dict[str, Any] | None, folder: Path) -> LabelFormat:
    """The format that dataset.json names, or the one that most files of the folder have.

    Raises:
        UserError: if no reader of nnU-Net takes the ending, or the folder holds no label map.
    """
    description = dataset_json or {}
    ending = str(description.get("file_ending", "")) or _commonest_ending(folder)
    reader = COMMON_READERS.get(ending.lower())
    if reader is None or description.get("overwrite_image_reader_writer", "None") != "None":
        known = readers_by_ending()
        if ending.lower() not in known:
            raise UserError(f"no reader for files that end in '{ending}'; known are {', '.join(sorted(known))}")
        reader = _reader_of_nnunet({**description, "file_ending": ending}, folder) or known[ending.lower()]
    return LabelFormat(ending, reader)


def _reader_of_nnunet(description: dict[str, Any], folder: Path) -> str | None:
    """The reader that nnU-Net takes, which tries them on a file where several take its ending (.tif)."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    names = (name for name in sorted(os.listdir(folder)) if name.endswith(description["file_ending"]))
    example = next((str(folder / name) for name in names), None)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it prints why a reader did not take the file
            return determine_reader_writer_from_dataset_json(description, example, verbose=False).__name__
    except RuntimeError:
        return None


def readers_by_ending() -> dict[str, str]:
    """The name of the reader that nnU-Net chooses first for each file ending, in lower case."""
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    return {e: c.__name__ for c in reversed(LIST_OF_IO_CLASSES) for e in c.supported_file_endings}


def read_labels(path: Path, fmt: LabelFormat) -> tuple[Labels, Geometry | None]:
    """A label map as integers, shape (rows, columns) or (slices, rows, columns), and its geometry.

    A natural image has no geometry (nnU-Net calls its spacing 1 and, in the axis that is not there, 999).

    Raises:
        UserError: if the file cannot be read, its header cannot be believed, it is cut short or damaged, is not one
            volume, or holds fractional values.
    """
    try:
        if fmt.reader == "SimpleITKIO":
            return _read_with_itk(path)
        if fmt.reader == "NaturalImage2DIO":
            greys = read_grey_png(path)
            if greys is None:
                with Image.open(path) as picture:
                    if (pages := getattr(picture, "n_frames", 1)) > 1:
                        raise UserError(f"{path}: holds {pages} pages, and the other files one; save it as they are")
                    greys = np.asarray(picture) if picture.mode == "L" else None
            if greys is not None:
                return greys, None
        return _read_with_nnunet(path, fmt)
    except UserError:
        raise
    except Exception as e:  # readers of six libraries fail in as many ways
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: is a link to a file that is not there; copy the file itself here") from e
        raise UserError(
            f"{path}: {known_refusal(e) or f'cannot be read ({reason_of(e)}); copy or export it again'}"
        ) from e


def read_grey_png(path: Path) -> NDArray[np.uint8] | None:
    """The greys of a plain 8-bit grey PNG, (rows, columns), decoded about twice as fast as by Pillow.

    None for every other file and for a damaged one, whose fault the caller's own decoder names.
    """
    content = path.read_bytes()
    plain = content[:8] == PNG_SIGNATURE and content[12:16] == b"IHDR" and content[24:29] == PLAIN_GREY
    if not plain:
        return None
    width, height = struct.unpack_from(">II", content, 16)
    if width * height > GZIP * len(content):
        return None
    try:
        image = imagecodecs.png_decode(content)
    except Exception:
        return None
    # A chunk that makes one grey transparent adds a channel here.
    return cast("NDArray[np.uint8]", image) if image.ndim == 2 and image.dtype == np.uint8 else None


def unknown_values(labels: Labels, known: frozenset[int]) -> frozenset[int]:
    """The values of a label map that are not among the known ones."""
    low, high = min(known), max(known)
    if len(known) == high - low + 1 and low <= labels.min() and labels.max() <= high:
        return frozenset()  # the common case, without looking for each value
    return frozenset(distinct_values(labels)) - known


def _read_with_itk(path: Path) -> tuple[Labels, Geometry]:
    import SimpleITK as sitk

    from nnunet_covid.whole_volumes import whole_volume

    try:
        image = whole_volume(path)
    except ValueError as e:
        raise UserError(f"{path}: {e}") from e
    return _integers(sitk.GetArrayFromImage(image), path), Geometry.of_itk(image)


def _read_with_nnunet(path: Path, fmt: LabelFormat) -> tuple[Labels, Geometry | None]:
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    if fault := header_fault(path) or false_claim(path):
        raise UserError(f"{path}: {fault}")
    with contextlib.redirect_stdout(io.StringIO()):  # the readers print their warnings
        array, properties = recursive_find_reader_writer_by_name(fmt.reader)().read_seg(str(path))
    if array.shape[0] != 1:
        found = f"a label map must have one channel, this one has {array.shape[0]} (colours, a palette, or alpha?)"
        raise UserError(f"{path}: {found}; save its labels as a grey picture")
    labels = _integers(array[0], path)
    if fmt.reader == "NaturalImage2DIO":
        return labels[0], None
    return labels, Geometry(tuple(float(s) for s in properties["spacing"])[::-1])


def _integers(array: NDArray[Any], path: Path) -> Labels:
    try:
        return whole_numbers(array)
    except ValueError as e:
        raise UserError(f"{path}: {e}") from e


def _commonest_ending(folder: Path) -> str:
    longest_first = sorted(readers_by_ending(), key=len, reverse=True)
    counts: dict[str, int] = {}
    for name in os.listdir(folder):
        for ending in longest_first:
            if name.lower().endswith(ending):
                counts[ending] = counts.get(ending, 0) + 1
                break
    if not counts:
        raise UserError(f"{folder}: holds no label map (looked for {', '.join(sorted(longest_first))})")
    return max(counts, key=lambda e: counts[e])
