"""Reading label maps as nnU-Net's own readers do, and their geometry without reading the voxels.

Two of nnU-Net's readers are short-cut, because they go through 32-bit floats that a label map does not need;
their axis order and spacing are kept. Every other format goes through nnU-Net's reader itself. SimpleITK is imported
only when a file calls for it: processes that score PNG slices start in half the time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.geometry import PIXELS, Geometry
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.evaluation.png_files import grey_png_shape, read_grey_png
from nnunet_covid.nnunet.segmentation_readers import (
    COMMON_READERS,
    read_segmentation,
    reader_names,
    readers_by_ending,
)
from nnunet_covid.whole_nifti import is_whole

FEW_VALUES = 16


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
    forced = description.get("overwrite_image_reader_writer")
    if forced and forced in reader_names():
        return LabelFormat(ending, str(forced))
    reader = COMMON_READERS.get(ending.lower())
    if reader is None:
        known = readers_by_ending()
        if ending.lower() not in known:
            raise UserError(f"no reader for files that end in '{ending}'; known are {', '.join(sorted(known))}")
        reader = known[ending.lower()]
    return LabelFormat(ending, reader)


def read_geometry(path: Path, fmt: LabelFormat) -> Geometry:
    """Shape, spacing and place from the header alone where the format allows it.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        if fmt.reader == "SimpleITKIO":
            import SimpleITK as sitk

            header = sitk.ImageFileReader()
            header.SetFileName(str(path))
            header.ReadImageInformation()
            return _itk_geometry(header)
        if fmt.reader == "NaturalImage2DIO":
            shape = grey_png_shape(path)
            if shape is None:
                with Image.open(path) as image:
                    shape = image.height, image.width
            return Geometry(shape, (1.0, 1.0), PIXELS)
    except (RuntimeError, OSError) as e:
        raise _unreadable(path, e) from e
    return read_labels(path, fmt)[1]


def read_labels(path: Path, fmt: LabelFormat) -> tuple[NDArray[np.integer], Geometry]:
    """A label map as integers, and its geometry.

    Raises:
        UserError: if the file cannot be read, is cut short or damaged, has more than one channel or holds fractional
            values.
    """
    try:
        if fmt.reader == "SimpleITKIO":
            import SimpleITK as sitk

            image = sitk.ReadImage(str(path))
            array = sitk.GetArrayFromImage(image)
            if not is_whole(path, array):
                raise UserError(f"{path}: is cut short or damaged; copy it again")
            return _integers(array, path), _itk_geometry(image)
        if fmt.reader == "NaturalImage2DIO":
            greys = read_grey_png(path)
            if greys is None:
                with Image.open(path) as picture:
                    greys = np.asarray(picture) if picture.mode == "L" else None
            if greys is not None:
                return greys, Geometry(greys.shape, (1.0, 1.0), PIXELS)
        return _read_with_nnunet(path, fmt)
    except UserError:
        raise
    except Exception as e:  # readers of six libraries fail in as many ways
        raise _unreadable(path, e) from e


def unknown_values(labels: NDArray[np.integer], known: frozenset[int]) -> frozenset[int]:
    """The values of a label map that are not among the known ones."""
    low, high = min(known), max(known)
    if len(known) == high - low + 1 and low <= labels.min() and labels.max() <= high:
        return frozenset()  # the common case, without looking for each value
    return present_values(labels) - known


def present_values(labels: NDArray[np.integer]) -> frozenset[int]:
    """The values that occur in a label map."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < FEW_VALUES:
        # Looking for each of a few values is faster than counting or sorting.
        return frozenset(value for value in range(low, high + 1) if (labels == value).any())
    return frozenset(np.unique(labels).tolist())


def _itk_geometry(image: Any) -> Geometry:
    """The geometry of an image of SimpleITK, or of a reader that has read its header."""
    shape = tuple(int(n) for n in image.GetSize())[::-1]
    edges = tuple(abs(float(s)) for s in image.GetSpacing())[::-1]
    if len(shape) not in (2, 3):
        raise RuntimeError(f"expected 2 or 3 axes, found {len(shape)}")
    units = Units("mm", "ml" if len(shape) == 3 else "mm2")
    return Geometry(shape, edges, units, tuple(image.GetOrigin()), tuple(image.GetDirection()))


def _read_with_nnunet(path: Path, fmt: LabelFormat) -> tuple[NDArray[np.integer], Geometry]:
    array, spacing = read_segmentation(path, fmt.reader)
    if array.shape[0] != 1:
        raise UserError(f"{path}: a label map must have one channel, this one has {array.shape[0]} (RGB or alpha?)")
    labels = _integers(array[0], path)
    if fmt.reader == "NaturalImage2DIO":
        return labels[0], Geometry(labels.shape[1:], (1.0, 1.0), PIXELS)
    return labels, Geometry(labels.shape, spacing, Units("mm", "ml"))


def _integers(array: NDArray[Any], path: Path) -> NDArray[np.integer]:
    if np.issubdtype(array.dtype, np.integer):
        return cast("NDArray[np.integer]", array)
    if array.dtype == np.bool_:
        return cast("NDArray[np.integer]", array.astype(np.uint8))
    low, high = float(array.min()), float(array.max())
    whole: NDArray[np.integer] = array.astype(np.uint8 if low >= 0 and high <= 255 else np.int64)
    if not np.array_equal(whole, array):
        raise UserError(f"{path}: a label map must hold whole numbers, this one holds fractions")
    return whole


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


def _unreadable(path: Path, e: Exception) -> UserError:
    reason = str(e).strip().splitlines()
    return UserError(f"{path}: cannot be read ({reason[-1] if reason else type(e).__name__})")
