"""nnU-Net's readers of label maps: which one takes a file, and what it reads.

nnunetv2 is imported when a function is called, not before: it takes longer to import than many folders take to read.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

# The readers of the two commonest endings, so that nnunetv2 need not be imported for them. Tests hold this against it.
COMMON_READERS = {".png": "NaturalImage2DIO", ".nii.gz": "SimpleITKIO"}


def reader_names() -> frozenset[str]:
    """Names of all readers, as ``overwrite_image_reader_writer`` in dataset.json may give them."""
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    return frozenset(c.__name__ for c in LIST_OF_IO_CLASSES)


def readers_by_ending() -> dict[str, str]:
    """The name of the reader that nnU-Net chooses first for each file ending, in lower case."""
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    return {e: c.__name__ for c in reversed(LIST_OF_IO_CLASSES) for e in c.supported_file_endings}


def read_segmentation(path: Path, reader: str) -> tuple[NDArray[Any], tuple[float, ...]]:
    """A label map as nnU-Net reads it, shape (channels, slices, rows, columns), and its spacing in mm.

    Raises:
        Exception: of whatever kind the library behind the reader raises for a file that it cannot read.
    """
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    with contextlib.redirect_stdout(io.StringIO()):  # the readers print their warnings
        array, properties = recursive_find_reader_writer_by_name(reader)().read_seg(str(path))
    return array, tuple(float(s) for s in properties["spacing"])
