"""Volumes: files (NIfTI, NRRD, MetaImage) and DICOM series, alone or with masks on the same grid or resampled to it.

What is asked of a DICOM series stands in ``dicom_series``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.raw_dataset.classes import ClassScheme, map_values, whole_labels
from nnunet_covid.raw_dataset.dicom import read_dicom
from nnunet_covid.raw_dataset.dicom_folder import Series, one_series
from nnunet_covid.raw_dataset.dicom_series import read_series
from nnunet_covid.raw_dataset.grey_scale import is_hounsfield
from nnunet_covid.raw_dataset.recipe import SourceCase
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.source import UnusableFile
from nnunet_covid.volume_files import NOT_FINITE, fault_of_kind
from nnunet_covid.whole_volumes import believed_header, whole_volume

CUT_OFF, FOREIGN = 0.05, 0.5
"""Share of a mask's labelled voxels outside its image from which on it is noted, and refused."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: Path, *, is_mask: bool = False) -> sitk.Image:
    """Read a volume file, a DICOM file with all its frames, or the one DICOM series of a folder.

    Args:
        path: The file or folder.
        is_mask: Whether it holds labels: a DICOM series of them needs no modality and no scale.

    Raises:
        UnusableFile: If ITK cannot read it, its header cannot be believed, it is cut short or damaged, or it is not one
            volume of real numbers; if there is not one series, or for what ``read_series`` raises it.
    """
    if path.is_dir():
        return read_series(one_series(path), is_mask=is_mask)
    if (file := read_dicom(path)) is not None:
        return read_series(Series(path.parent, (file,)), is_mask=is_mask)
    try:
        return whole_volume(path)
    except ValueError as e:
        raise UnusableFile(path, str(e)) from e


def read_header(path: Path) -> sitk.ImageFileReader:
    """The header of a volume file: size, spacing, origin and direction without the voxels.

    Raises:
        UnusableFile: If ITK cannot read the header, or it cannot be believed.
    """
    try:
        return believed_header(path)
    except ValueError as e:
        raise UnusableFile(path, str(e)) from e


def array_of(image: sitk.Image, path: Path) -> NDArray[Any]:
    """Voxels as the smallest type that holds them: unsigned or signed integers, else 32-bit floats.

    Raises:
        UnusableFile: If a voxel is not a finite number.
    """
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnusableFile(path, NOT_FINITE)
        if not (array == np.round(array)).all():
            return array.astype(np.float32)
    low, high = int(array.min()), int(array.max())
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float32)


def read_voxels(path: Path, *, is_mask: bool = False) -> NDArray[Any]:
    """The voxels of a volume file or series, read by ``read_volume``, as ``array_of`` gives them.

    Raises:
        UnusableFile: If it cannot be used.
    """
    return array_of(read_volume(path, is_mask=is_mask), path)


def differing_grids(image: Path, masks: Iterable[Path], *, blank_masks: bool = False) -> Iterator[tuple[Path, str]]:
    """The masks that lie on another grid than their image, and in what respect; by the headers alone.

    Raises:
        UnusableFile: If one of them is no volume.
    """
    header = _volume_header(image)
    for mask in masks:
        found = _volume_header(mask)
        if (difference := difference_of_grids(found, header)) and not (blank_masks and _is_blank(found, header)):
            yield mask, difference


def _volume_header(path: Path) -> sitk.ImageFileReader:
    header = read_header(path)
    pixel = sitk.GetPixelIDValueAsString(header.GetPixelID())
    if fault := fault_of_kind(header.GetSize(), header.GetNumberOfComponents(), pixel):
        raise UnusableFile(path, fault)
    return header


def _grid(image: Any) -> tuple[tuple[int, ...], Geometry]:
    """Size and geometry of an image or a header, without the axes of length one behind the third."""
    size, geometry = tuple(image.GetSize()), Geometry.of_itk(image)
    if len(size) <= 3:
        return size, geometry
    direction = np.reshape(geometry.direction, (len(size), -1))[:3, :3].ravel()
    return size[:3], Geometry(geometry.spacing[:3], geometry.origin[:3], tuple(direction.tolist()))


def _is_blank(mask: Any, image: Any) -> bool:
    """Whether a mask (image or header) has its image's size, and a header without a place in space."""
    (size, geometry), (expected, _) = _grid(mask), _grid(image)
    return size == expected and geometry.is_blank


def difference_of_grids(mask: Any, image: Any) -> str | None:
    """In which respect the grid of a mask (image or header) differs from its image's; ``None`` where they agree."""
    remedy = "export the mask on the grid of the image"
    (size, geometry), (image_size, image_geometry) = _grid(mask), _grid(image)
    if size != image_size:
        return f"has {_times(size)} voxels, its image {_times(image_size)}; {remedy}"
    aspect = difference_of(geometry, image_geometry)
    if aspect and (geometry.is_blank or image_geometry.is_blank):
        blank, other = ("its", "that of its image") if geometry.is_blank else ("that of its image", "its own")
        reason = f"{blank} header is blank (1 mm voxels at the origin), {other} is not"
        return f"{reason}; where both hold the same voxels in the same order, copy the other header onto the blank one"
    if aspect == "spacing":
        return f"has spacing {_times(geometry.spacing)} mm, its image {_times(image_geometry.spacing)} mm; {remedy}"
    return aspect and f"lies elsewhere in space than its image (origin or direction differ); {remedy}"


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" for value in values)


def read_volume_pair(
    case: SourceCase,
    scheme: ClassScheme,
    *,
    is_hu: bool | None = True,
    resample: bool = False,
) -> Scan:
    """Read image, mask and lung mask of one case.

    Args:
        case: The files.
        scheme: Table from source values to classes.
        is_hu: Whether the image holds Hounsfield units; ``None`` where its own values decide.
        resample: Whether masks on another grid are resampled to the image's in physical space; else they are
            refused.

    Raises:
        UnusableFile: If one of the files is not what it should be.
    """
    image = read_volume(case.image)
    array = array_of(image, case.image)
    is_hu = is_hounsfield(array) if is_hu is None else is_hu
    scan = Scan(image=array, geometry=Geometry.of_itk(image), is_hu=is_hu)
    read = partial(_read_mask, image=image, resample=resample, blank_masks=case.blank_masks, notes=scan.notes)
    if case.mask is not None:
        scan.label = map_values(read(case.mask), scheme.values, case.mask)
        if is_hu:
            scan.notes["mean_hu"] = mean_by_class(scan.image, scan.label, scheme)
    if case.lungs is not None:
        scan.lungs = whole_labels(read(case.lungs), case.lungs) > 0
    return scan


def mean_by_class(image: NDArray[Any], label: NDArray[np.uint8], scheme: ClassScheme) -> dict[str, float]:
    """Mean intensity inside each class, neither the background nor what is not labelled."""
    values = (value for value in np.unique(label) if value not in (0, scheme.ignore))
    return {str(value): round(float(image[label == value].mean()), 1) for value in values}


def _read_mask(
    path: Path, image: sitk.Image, *, resample: bool, blank_masks: bool, notes: dict[str, Any]
) -> NDArray[Any]:
    mask = read_volume(path, is_mask=True)
    difference = difference_of_grids(mask, image)
    if difference and blank_masks and _is_blank(mask, image):
        notes["blank_header"] = "the mask was taken to lie on the grid of its image"
        return array_of(mask, path)
    # these are not resampled either: they would end where they do not belong
    unplaced = _grid(mask)[1].is_blank or _grid(image)[1].is_blank or mask.GetDimension() != image.GetDimension()
    if difference and (unplaced or not resample):
        raise UnusableFile(path, difference)
    if difference:
        outside = _share_outside(mask, image)
        labelled = sitk.GetArrayViewFromImage(mask).any()
        mask = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        if labelled and not sitk.GetArrayViewFromImage(mask).any():
            raise UnusableFile(path, "does not overlap its image in space; check that both belong together")
        if outside > FOREIGN:
            reason = f"{outside:.0%} of what it marks lies outside its image; check that both belong together"
            raise UnusableFile(path, reason)
        if outside > CUT_OFF:
            notes["cut_off"] = max(round(outside, 3), notes.get("cut_off", 0.0))
    return array_of(mask, path)


def _share_outside(mask: sitk.Image, image: sitk.Image) -> float:
    """Share of the labelled voxels of a mask whose middle lies outside the image."""
    everywhere = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(image)
    inside = sitk.Resample(everywhere, mask, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    labelled = sitk.GetArrayViewFromImage(mask) != 0
    found = sitk.GetArrayViewFromImage(inside)[labelled]
    return float(1 - found.mean()) if found.size else 0.0
