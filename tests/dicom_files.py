"""DICOM files as scanners and archives write them: slices, multi-frame files, objects without an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = f"{CT}.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SPACING = (0.7, 0.8)
"""Distance of rows, and of columns."""
STEP = 2.5
ORIGIN = (-10.0, 20.0, -30.0)


def at(number: float) -> list[float]:
    """Position of a slice, counted from 0."""
    return [ORIGIN[0], ORIGIN[1], ORIGIN[2] + STEP * number]


def dicom_object(sop_class: str, modality: str, uid: str, **elements: Any) -> Dataset:
    """Any DICOM object; its own UID is that of its series and a number."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Modality, ds.PatientID, ds.StudyInstanceUID = modality, "X", "1.2.9"
    ds.SeriesInstanceUID = uid.rpartition(".")[0]
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def with_pixels(ds: Dataset, pixels: NDArray[Any], **elements: Any) -> Dataset:
    """The object with pixels in Hounsfield units (y, x) or (frame, y, x); elements that are ``None`` are taken out."""
    usual = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": list(SPACING),
        "SliceThickness": STEP,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes(),
    }
    ds.Rows, ds.Columns = pixels.shape[-2:]
    for name, value in {**usual, **elements}.items():
        if value is not None:
            setattr(ds, name, value)
        elif name in ds:
            delattr(ds, name)
    return ds


def ct_slice(pixels: NDArray[Any], number: int, series: str = "1.2.3", **elements: Any) -> Dataset:
    """The axial slice with this number."""
    ds = dicom_object(CT, "CT", f"{series}.{number + 1}")
    placed = {"ImagePositionPatient": at(number), "ImageOrientationPatient": list(AXIAL), "InstanceNumber": number + 1}
    return with_pixels(ds, pixels, **{**placed, **elements})


def write(ds: Dataset, path: Path) -> None:
    """Write a file with preamble and meta header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(str(path), enforce_file_format=True)


def write_without_preamble(ds: Dataset, path: Path) -> None:
    """Write the elements alone, implicit little endian, as some planning systems do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        target = DicomFileLike(stream)
        target.is_implicit_VR = target.is_little_endian = True
        write_dataset(target, ds)


def write_series(folder: Path, volume: NDArray[Any], name: str = "{:03d}.dcm", **arguments: Any) -> None:
    """One file per slice of a volume (z, y, x)."""
    for number, pixels in enumerate(volume):
        write(ct_slice(pixels, number, **arguments), folder / name.format(number))


def change(path: Path, **elements: Any) -> None:
    """Give a written file other elements; ``None`` takes one out."""
    ds = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    write(ds, path)


def structure_set(modality: str = "RTSTRUCT") -> Dataset:
    """An object without pixels."""
    return dicom_object("1.2.840.10008.5.1.4.1.1.481.3", modality, "1.2.77.1")


def multi_frame(volume: NDArray[Any], **elements: Any) -> Dataset:
    """All slices in one file of the old kind, which gives the position of the first alone."""
    ds = dicom_object(CT, "CT", "1.2.3.1")
    placed = {"ImagePositionPatient": at(0), "ImageOrientationPatient": list(AXIAL), "NumberOfFrames": len(volume)}
    return with_pixels(ds, volume, **{**placed, **elements})


def enhanced(
    volume: NDArray[Any], positions: Sequence[Sequence[float]] | None = None, intercepts: Sequence[float] = (-1024.0,)
) -> Dataset:
    """All slices in one file of the new kind: a group of elements that all frames share, and one for each frame."""
    lacking = dict.fromkeys(("PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"))
    ds = with_pixels(dicom_object(ENHANCED_CT, "CT", "1.2.3.1"), volume, NumberOfFrames=len(volume), **lacking)
    ds.SharedFunctionalGroupsSequence = [
        _groups(
            PixelMeasuresSequence={"PixelSpacing": list(SPACING), "SliceThickness": STEP},
            PlaneOrientationSequence={"ImageOrientationPatient": list(AXIAL)},
            **(_scale(intercepts[0]) if len(intercepts) == 1 else {}),
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _groups(
            PlanePositionSequence={"ImagePositionPatient": list(position)},
            **(_scale(intercepts[number]) if len(intercepts) > 1 else {}),
        )
        for number, position in enumerate(positions or [at(number) for number in range(len(volume))])
    ]
    return ds


def _scale(intercept: float) -> dict[str, dict[str, Any]]:
    return {"PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": intercept, "RescaleType": "HU"}}


def _groups(**sequences: dict[str, Any]) -> Dataset:
    found = Dataset()
    for name, elements in sequences.items():
        item = Dataset()
        for element, value in elements.items():
            setattr(item, element, value)
        setattr(found, name, [item])
    return found
