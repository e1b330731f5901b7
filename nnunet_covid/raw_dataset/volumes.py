"""Volumes: files (NIfTI, NRRD, MetaImage) and DICOM series, alone or with masks on the same grid or resampled to it.

What is asked of a DICOM series stands in ``dicom_series``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.files import is_whole
from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.raw_dataset.classes import ClassScheme, map_values
from nnunet_covid.raw_dataset.dicom import read_dicom
from nnunet_covid.raw_dataset.dicom_folder import Series, one_series
from nnunet_covid.raw_dataset.dicom_series import read_series
from nnunet_covid.raw_dataset.recipe import SourceCase
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.source import UnusableFile

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: Path, *, is_mask: bool = False) -> sitk.Image:
    """Read a volume file, a DICOM file with all its frames, or the one DICOM series of a folder.

    Args:
        path: The file or folder.
        is_mask: Whether it holds labels: a DICOM series of them needs no modality and no scale.

    Raises:
        UnusableFile: If ITK cannot read it, it is cut short or damaged, or it has more than one channel; if there
            is not one series, or for what ``read_series`` raises it.
    """
    if path.is_dir():
        return read_series(one_series(path), is_mask=is_mask)
    if (file := read_dicom(path)) is not None:
        return read_series(Series(path.parent, (file,)), is_mask=is_mask)
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


def read_header(path: Path) -> sitk.ImageFileReader:
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
    if "orthonormal" in str(error):
        return "its axes are not at right angles; resample the image to an upright grid"
    return "cannot be read as an image; download or export it again"


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


def read_voxels(path: Path) -> NDArray[Any]:
    """The voxels of a volume file or series as ``array_of`` gives them.

    Raises:
        UnusableFile: If it cannot be used.
    """
    return array_of(read_volume(path), path)


def differing_grids(image: Path, masks: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The masks that lie on another grid than their image, and in what respect; by the headers alone."""
    header = read_header(image)
    for mask in masks:
        if difference := difference_of_grids(read_header(mask), header):
            yield mask, difference


def difference_of_grids(mask: Any, image: Any) -> str | None:
    """In which respect the grid of a mask (image or header) differs from its image's; ``None`` where they agree."""
    remedy = "export the mask on the grid of the image"
    if mask.GetSize() != image.GetSize():
        return f"has {_times(mask.GetSize())} voxels, its image {_times(image.GetSize())}; {remedy}"
    aspect = difference_of(Geometry.of_itk(mask), Geometry.of_itk(image))
    if aspect == "spacing":
        return f"has spacing {_times(mask.GetSpacing())} mm, its image {_times(image.GetSpacing())} mm; {remedy}"
    return aspect and f"lies elsewhere in space than its image (origin or direction differ); {remedy}"


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" for value in values)


def read_volume_pair(case: SourceCase, scheme: ClassScheme, *, is_hu: bool = True, resample: bool = False) -> Scan:
    """Read image, mask and lung mask of one case.

    Args:
        case: The files.
        scheme: Table from source values to classes.
        is_hu: Whether the image holds Hounsfield units.
        resample: Whether masks on another grid are resampled to the image's in physical space; else they are
            refused.

    Raises:
        UnusableFile: If one of the files is not what it should be.
    """
    image = read_volume(case.image)
    scan = Scan(image=array_of(image, case.image), geometry=Geometry.of_itk(image), is_hu=is_hu)
    if case.mask is not None:
        scan.label = map_values(_read_mask(case.mask, image, resample), scheme.values, case.mask)
        if is_hu:
            scan.notes["mean_hu"] = mean_by_class(scan.image, scan.label)
    if case.lungs is not None:
        scan.lungs = _read_mask(case.lungs, image, resample) > 0
    return scan


def mean_by_class(image: NDArray[Any], label: NDArray[np.uint8]) -> dict[str, float]:
    """Mean intensity inside each class but the background."""
    return {str(value): round(float(image[label == value].mean()), 1) for value in np.unique(label) if value != 0}


def _read_mask(path: Path, image: sitk.Image, resample: bool) -> NDArray[Any]:
    mask = read_volume(path, is_mask=True)
    difference = difference_of_grids(mask, image)
    if difference and not resample:
        raise UnusableFile(path, difference)
    if difference:
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        mask = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        if voxels and not np.count_nonzero(sitk.GetArrayViewFromImage(mask)):
            raise UnusableFile(path, "does not overlap its image in space; check that both belong together")
    return array_of(mask, path)
