"""A DICOM series: whether it is one whole upright volume, and its voxels.

SimpleITK decodes the pixels. Order, distances and units are checked here by the headers: it loads series with gaps,
doubled slices and missing values, and frames in any order, without an error. What one file is stands in ``dicom``,
which series lie in a folder in ``dicom_folder``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from nnunet_covid.files import name_fault, some_of
from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.header_claims import false_claim
from nnunet_covid.raw_dataset.dicom import TOLD_APART_BY, UNDEFINED, DicomFile, Frame, has_sound_rle, name_of_syntax
from nnunet_covid.raw_dataset.dicom_folder import Series
from nnunet_covid.raw_dataset.grey_scale import is_hounsfield
from nnunet_covid.raw_dataset.source import UnusableFile

SPACING_TOLERANCE = 0.02
"""Slice distances may differ by this share of their median; more means that slices are missing."""
ALIKE = 1e-2
"""Directions and pixel sizes of the slices of one volume may differ by this: scanners round them."""
GREY = ("MONOCHROME1", "MONOCHROME2", "")
NO_SLICE = "take out what is no slice of this volume (a scout, a reconstruction), or export the series again"
UNDECODABLE = ("1.2.840.10008.1.2.4.20", "1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.4.11", "1.2.840.10008.1.2.4.94")
"""How transfer syntaxes begin that GDCM does not know: HTJ2K, MPEG, JPEG XL, JPIP."""


def read_series(series: Series, *, is_mask: bool = False) -> sitk.Image:
    """A series as a volume: in Hounsfield units, slices along their normal.

    Args:
        series: Its files.
        is_mask: Whether it holds labels, which need no modality and no scale.

    Raises:
        UnusableFile: If it is no whole, upright volume of one value per voxel, or cannot be decoded; for an image,
            also if it is no CT or has no scale.
    """
    planes = check_series(series, is_mask=is_mask)
    for file in series.files:
        if file.syntax == RLELossless and not has_sound_rle(file):
            raise _undecodable(file)
        if file.pixel_bytes == UNDEFINED and (claim := false_claim(file.path)):
            raise UnusableFile(file.path, claim)
    image = _read_frames(series.files[0], planes) if len(series.files) == 1 else _read_slices(series, planes)
    if not is_mask and planes[0].frame.rescale is None and not is_hounsfield(sitk.GetArrayViewFromImage(image)):
        reason = "has no scale to Hounsfield units (RescaleIntercept, RescaleSlope)"
        raise UnusableFile(series.place, f"{reason}; export it with these, or as NIfTI to use its grey values")
    return image


def _read_slices(series: Series, planes: Sequence[Plane]) -> sitk.Image:
    """One file per plane, stacked in their order."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(plane.file.path) for plane in planes])
    if len({(plane.frame.rescale, plane.file.stored) for plane in planes}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # else the type is that of the first slice
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise _undecodable(_first_undecodable(series.files)) from e
    geometry = _geometry_of(planes)
    if difference_of(Geometry.of_itk(image), geometry):  # of some kinds of objects GDCM looks for it elsewhere
        _place(image, geometry)
    return image


def _first_undecodable(files: Sequence[DicomFile]) -> DicomFile:
    """At which the reading of a series ended."""
    for file in files:
        try:
            sitk.ReadImage(str(file.path))
        except RuntimeError:
            return file
    return files[0]


def _undecodable(file: DicomFile) -> UnusableFile:
    """What is told, with the compression where there is one."""
    compressed = f" ({name_of_syntax(file.syntax)})" if file.pixel_bytes == UNDEFINED else ""
    return UnusableFile(file.path, f"its pixels cannot be decoded{compressed}; export it again, uncompressed")


@dataclass(frozen=True)
class Plane:
    """One frame of a file."""

    file: DicomFile
    index: int
    frame: Frame

    @property
    def name(self) -> str:
        """How a message calls it."""
        return f"frame {self.index + 1}" if len(self.file.frames) > 1 else self.file.path.name


def _read_frames(file: DicomFile, planes: Sequence[Plane]) -> sitk.Image:
    """One file with its frames in the order of the planes, with their geometry."""
    try:
        image = sitk.ReadImage(str(file.path))
    except RuntimeError as e:
        raise _undecodable(file) from e
    voxels = sitk.GetArrayFromImage(image).reshape(len(planes), *file.size[::-1])
    ordered = sitk.GetImageFromArray(voxels[[plane.index for plane in planes]])
    _place(ordered, _geometry_of(planes))
    return ordered


def _geometry_of(planes: Sequence[Plane]) -> Geometry:
    """The grid of planes in their order, by their headers."""
    first = planes[0].frame
    assert first.spacing is not None
    rows, columns = first.spacing
    positions = [plane.frame.position for plane in planes if plane.frame.position is not None]
    if len(positions) == len(planes) > 1:
        distance = float(np.linalg.norm(np.subtract(positions[-1], positions[0]))) / (len(planes) - 1)
    else:
        assert first.distance is not None
        (distance,) = first.distance
    axes = np.eye(3)
    if first.orientation is not None:
        axes = np.column_stack([*np.reshape(first.orientation, (2, 3)), _normal(first)])
        axes /= np.linalg.norm(axes, axis=0)
    origin = positions[0] if positions else (0.0, 0.0, 0.0)
    return Geometry((columns, rows, distance), origin, tuple(axes.ravel().tolist()))


def _place(image: sitk.Image, geometry: Geometry) -> None:
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)


def check_series(series: Series, *, is_mask: bool = False) -> list[Plane]:
    """The planes in their order along the normal; for arguments and errors see ``read_series``."""
    for file in series.files:
        if reason := _fault_of_file(file, is_mask):
            raise UnusableFile(file.path, reason)
    planes = [Plane(file, index, frame) for file in series.files for index, frame in enumerate(file.frames)]
    if len(series.files) > 1 and len(planes) > len(series.files):
        names = some_of(file.path.name for file in series.files if len(file.frames) > 1)
        raise UnusableFile(series.folder, f"holds multi-frame files of one series beside others ({names}); leave one")
    _require_alike(series, planes)
    if len(planes) == 1 or (len(series.files) == 1 and all(plane.frame.position is None for plane in planes[1:])):
        return _without_positions(series, planes)
    lacking = [plane.name for plane in planes if plane.frame.position is None or plane.frame.orientation is None]
    if lacking:
        what = "do not say where they lie (ImagePositionPatient, ImageOrientationPatient)"
        raise UnusableFile(
            series.folder,
            f"{len(lacking)} of {len(planes)} slices {what}: {some_of(lacking, 3)}; export the series again",
        )
    return _in_order(series, planes)


def _fault_of_file(file: DicomFile, is_mask: bool) -> str | None:
    """Why a file cannot be a slice of a CT, or of a mask."""
    if fault := name_fault(file.path):
        return fault
    if file.damaged or file.no_image:
        return f"is {file.no_image or 'a damaged DICOM file; download or export it again'}"
    if file.pixel_bytes is None or not file.bytes_needed:
        return "holds no pixels; download or export it again"
    if file.syntax.startswith(UNDECODABLE):
        return f"is compressed as {name_of_syntax(file.syntax)}, which cannot be decoded; export it again, uncompressed"
    if file.colours == "MONOCHROME1" and not is_mask:
        return "is stored inverted (MONOCHROME1), and decoders differ on what that means; export it as MONOCHROME2"
    if file.samples > 1 or file.colours not in GREY:
        return f"is in colours ({file.colours}), such as a dose report or a screenshot; take it out"
    if file.pixel_bytes != UNDEFINED and file.pixel_bytes < file.bytes_needed:
        share = f"{file.pixel_bytes} of {file.bytes_needed} bytes"
        return f"is cut short ({share} of its pixels); download or export it again"
    if is_mask:
        return None
    if file.modality not in ("CT", ""):
        return f"is {file.modality}, not CT; take it out, or save it as NIfTI to use it all the same"
    if "LOCALIZER" in file.kinds:
        return "is a scout (ImageType LOCALIZER); take it out"
    return None


def _require_alike(series: Series, planes: Sequence[Plane]) -> None:
    """What all slices of a volume share; those are named that differ from most.

    Raises:
        UnusableFile: If something differs.
    """
    for text, value in (
        ("has {} pixels, {} others have {}", lambda plane: plane.file.size),
        ("lies along {}, {} others along {}", lambda plane: plane.frame.orientation),
        ("has a pixel spacing of {} mm, {} others of {}", lambda plane: plane.frame.spacing),
        ("has {} to Hounsfield units (RescaleIntercept), {} others have {}", _scale),
    ):
        odd, usual = _unlike_most(planes, value)
        if odd:
            more = f" (and {len(odd) - 1} more like it)" if len(odd) > 1 else ""
            reason = text.format(_shown(value(odd[0])), len(planes) - len(odd), _shown(usual))
            frame = f"{odd[0].name} " if len(series.files) == 1 else ""
            raise UnusableFile(odd[0].file.path, f"{frame}{reason}{more}; {NO_SLICE}")
    if len(series.files) == 1 and len({plane.frame.rescale for plane in planes}) > 1:
        reason = "its frames have different scales (RescaleSlope, RescaleIntercept); export one file per slice"
        raise UnusableFile(series.files[0].path, reason)
    first = planes[0].frame
    if first.orientation is not None and abs(np.linalg.norm(_normal(first)) - 1) > ALIKE:
        reason = f"its rows and columns, along {_shown(first.orientation)}, are not at right angles"
        raise UnusableFile(planes[0].file.path, f"{reason} (ImageOrientationPatient); export the series again")
    spacing = first.spacing
    if spacing is None or min(spacing) <= 0:
        said = "does not say how large a pixel is" if spacing is None else f"has pixels of {_shown(spacing)} mm"
        raise UnusableFile(planes[0].file.path, f"{said} (PixelSpacing); export the series again")


def _scale(plane: Plane) -> str:
    return "a scale" if plane.frame.rescale is not None else "no scale"


def _unlike_most(planes: Sequence[Plane], value: Callable[[Plane], Any]) -> tuple[list[Plane], Any]:
    """The planes that have another value than most have, and that value."""
    usual = Counter(map(value, planes)).most_common(1)[0][0]

    def differs(found: Any) -> bool:
        if found is None or usual is None or isinstance(usual, str):
            return bool(found != usual)
        return not np.allclose(found, usual, rtol=0.0, atol=ALIKE)

    return [plane for plane in planes if differs(value(plane))], usual


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "×".join(f"{number:.4g}" for number in value)
    return value if isinstance(value, str) else "nothing known"


def _normal(frame: Frame) -> NDArray[np.float64]:
    assert frame.orientation is not None
    row, column = np.reshape(frame.orientation, (2, 3))
    return np.cross(row, column)


def _without_positions(series: Series, planes: list[Plane]) -> list[Plane]:
    """One slice, or frames in the order of their file, whose distance the header gives.

    Raises:
        UnusableFile: If it does not.
    """
    distance = planes[0].frame.distance
    if distance is None or distance[0] <= 0:
        what = "does not say how far its slices lie apart (SpacingBetweenSlices, SliceThickness)"
        raise UnusableFile(series.files[0].path, f"{what}; export it again, or as NIfTI")
    return planes


def _in_order(series: Series, planes: list[Plane]) -> list[Plane]:
    """Along the normal, at equal distances, one above the other.

    Raises:
        UnusableFile: If they are not.
    """
    normal = _normal(planes[0].frame)
    along = np.array([np.dot(plane.frame.position or (), normal) for plane in planes])
    order = np.argsort(along, kind="stable")
    ordered = [planes[index] for index in order]
    positions = np.array([plane.frame.position for plane in ordered])
    steps = np.diff(positions, axis=0)
    distances = steps @ normal
    apart = distances[distances > SPACING_TOLERANCE / 2 * distances.max()]
    typical = float(np.median(apart)) if len(apart) else 0.0
    if doubled := [i for i, distance in enumerate(distances) if distance <= SPACING_TOLERANCE * typical]:
        raise UnusableFile(series.place, _doubled(ordered, doubled))
    if np.abs(distances - typical).max() > SPACING_TOLERANCE * typical:
        where = int(np.abs(distances - typical).argmax())
        between = f"between {ordered[where].name} and {ordered[where + 1].name}"
        span = f"distances {distances.min():g} to {distances.max():g} mm"
        reason = f"slices are missing or unevenly spaced ({span}), {between}"
        raise UnusableFile(series.place, f"{reason}; download the whole series")
    sideways = np.linalg.norm(steps - np.outer(distances, normal), axis=1)
    if sideways.max() > SPACING_TOLERANCE * typical:
        raise UnusableFile(series.place, "the gantry was tilted; resample the series to an upright grid")
    return ordered


def _doubled(planes: Sequence[Plane], places: Sequence[int]) -> str:
    """Which planes share a position, and what tells them apart."""
    pairs = [f"{planes[place].name} and {planes[place + 1].name}" for place in places]
    reason = f"{len(pairs)} slices lie where another one does: {some_of(pairs, 3)}"
    marks = list(zip(TOLD_APART_BY, zip(*(plane.file.marks for plane in planes), strict=True), strict=True))
    for name, values in marks:
        if all(values[place] != values[place + 1] for place in places):
            return f"{reason}; they differ in {name} ({some_of(set(values))}): leave one of these acquisitions"
    return f"{reason}; leave one of each, or one of the series or phases"
