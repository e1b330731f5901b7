"""CT series in DICOM: finding the one series of a folder and reading it as a volume in Hounsfield units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_covid.raw_dataset.problems import UnusableFile

_MODALITY = "0008|0060"
_POSITION = "0020|0032"
_IMAGE_MODALITIES = {"CT", "MR", "PT", ""}

SPACING_TOLERANCE = 0.02
"""Slice distances may differ by this share of their median; more means that slices are missing."""


def is_dicom(path: Path) -> bool:
    """Whether a file carries DICOM's magic word; the ending says nothing."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series_folders(folder: Path) -> list[Path]:
    """All folders at or below ``folder`` that hold DICOM images; segmentations and structure sets do not count."""
    candidates = sorted({path.parent for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")})
    return [candidate for candidate in candidates if _first_image(candidate) is not None]


def _first_image(folder: Path) -> Path | None:
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_dicom(path):
            return path if _modality(path) in _IMAGE_MODALITIES else None
    return None


def _modality(path: Path) -> str:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return "unreadable"
    return reader.GetMetaData(_MODALITY).strip() if reader.HasMetaDataKey(_MODALITY) else ""


def read_series(folder: Path) -> sitk.Image:
    """The one series in a folder, slices in the order of their position.

    Raises:
        UnusableFile: If there is no series or more than one, or slices are missing or tilted.
    """
    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        remedy = "leave one series in the folder" if series else "give the folder that holds the .dcm files"
        raise UnusableFile(folder, f"holds {len(series)} DICOM series; {remedy}")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise UnusableFile(folder, "a DICOM file cannot be read; download the series again") from e
    _check_positions(reader, image, folder)
    return image


def _check_positions(reader: sitk.ImageSeriesReader, image: sitk.Image, folder: Path) -> None:
    positions = [
        [float(value) for value in reader.GetMetaData(index, _POSITION).split("\\")]
        for index in range(image.GetSize()[2])
        if reader.HasMetaDataKey(index, _POSITION)
    ]
    if len(positions) < 3:
        return
    steps = np.diff(np.array(positions), axis=0)
    normal = np.array(image.GetDirection()).reshape(3, 3)[:, 2]
    distances = np.abs(steps @ normal)
    typical = float(np.median(distances))
    if np.abs(distances - typical).max() > SPACING_TOLERANCE * typical:
        reason = f"slices are missing (distances {distances.min():g} to {distances.max():g} mm)"
        raise UnusableFile(folder, f"{reason}; download the whole series")
    sideways = np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1)
    if sideways.max() > SPACING_TOLERANCE * typical:
        raise UnusableFile(folder, "the gantry was tilted; resample the series to an upright grid")
