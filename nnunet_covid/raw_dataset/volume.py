"""Volumes on disk (NIfTI, NRRD, MetaImage): arrays with their geometry, and whether two grids agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.raw_dataset.problems import UnusableFile
from nnunet_covid.raw_dataset.scan import Geometry
from nnunet_covid.whole_nifti import is_whole

TOLERANCE_MM = 1e-2
"""Grids whose corners are closer than this are the same; formats round differently."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: Path) -> sitk.Image:
    """Read a volume file.

    Raises:
        UnusableFile: If ITK cannot read it, it is cut short or damaged, or it has more than one channel.
    """
    try:
        image = sitk.ReadImage(str(path))
        whole = is_whole(path, sitk.GetArrayViewFromImage(image))
    except (OSError, RuntimeError) as e:
        raise UnusableFile(path, _unreadable(e)) from e
    if not whole:
        raise UnusableFile(path, "is cut short or damaged; copy it again")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise UnusableFile(path, "has several values per voxel; export one grey value per voxel")
    return image


def read_grid(path: Path) -> sitk.ImageFileReader:
    """The header of a volume file: size, spacing, origin and direction without the voxels.

    Raises:
        UnusableFile: If ITK cannot read the header.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise UnusableFile(path, _unreadable(e)) from e
    return reader


def _unreadable(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("orthonormal" in line for line in lines):
        return "its axes are not at right angles; resample the image to an upright grid"
    return "cannot be read as an image; download or export it again"


def geometry_of(image: sitk.Image) -> Geometry:
    """Spacing, origin and direction of an image."""
    return Geometry(tuple(image.GetSpacing()), tuple(image.GetOrigin()), tuple(image.GetDirection()))


def array_of(image: sitk.Image, path: Path) -> NDArray[Any]:
    """Voxels as the smallest type that holds them: unsigned or signed integers, else 32-bit floats.

    Raises:
        UnusableFile: If a voxel is not a finite number.
    """
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnusableFile(path, "holds voxels that are no finite numbers; replace them by air (-1024)")
        if not (array == np.round(array)).all():
            return array.astype(np.float32)
    low, high = int(array.min()), int(array.max())
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float32)


def difference_of_grids(first: Any, second: Any) -> str | None:
    """In which respect two grids differ, in words; ``None`` where they agree."""
    if first.GetSize() != second.GetSize():
        return f"has {_times(first.GetSize())} voxels, its image {_times(second.GetSize())}"
    if not np.allclose(first.GetSpacing(), second.GetSpacing(), rtol=1e-3, atol=1e-4):
        return f"has spacing {_times(first.GetSpacing())} mm, its image {_times(second.GetSpacing())} mm"
    if _corner_distance(first, second) > TOLERANCE_MM * max(first.GetSize()) ** 0.5:
        return "lies elsewhere in space than its image (origin or direction differ)"
    return None


def _corner_distance(first: Any, second: Any) -> float:
    """Largest distance between corresponding corners of two grids of equal size, millimetres."""
    size = np.array(first.GetSize(), dtype=float) - 1
    corners = np.stack(np.meshgrid(*[(0.0, n) for n in size], indexing="ij"), axis=-1).reshape(-1, len(size))
    return float(np.linalg.norm(_points(first, corners) - _points(second, corners), axis=-1).max())


def _points(grid: Any, indices: NDArray[np.float64]) -> NDArray[np.float64]:
    dimension = indices.shape[1]
    direction = np.array(grid.GetDirection()).reshape(dimension, dimension)
    return np.array(grid.GetOrigin()) + (indices * np.array(grid.GetSpacing())) @ direction.T


def resampled_label(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The mask on the grid of the image, in physical space, by nearest neighbour."""
    return sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" for value in values)
