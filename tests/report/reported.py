"""A DICOM series of the box chest, and a model whose labels are known without training: infection above a threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from box_chest import BoxChest
from model_folders import complete_plans, write_model
from planned import dataset_json
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CPU = ["-device", "cpu", "--disable_tta"]
IDENTIFIERS = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "KH-4711-0815",
    "PatientBirthDate": "19500117",
    "AccessionNumber": "ACC998877",
    "ReferringPhysicianName": "Zuweiser^Otto",
    "InstitutionName": "Klinikum Irgendwo",
    "StudyID": "ST-31337",
    "StudyDescription": "Thorax Mustermann",
    "SeriesDescription": "Lunge Erika 2.5",
    "StationName": "CTROOM7",
    "OperatorsName": "Bediener^Ina",
    "StudyTime": "104233.170000",
    "DeviceSerialNumber": "SN-556677",
    "PatientComments": "Tochter rufen",
}


def write_series(folder: Path, image: sitk.Image, day: str = "20200328", **changes: Any) -> Path:
    """A CT series of a volume, one file a slice, with a person's data in every header."""
    folder.mkdir(parents=True)
    series = generate_uid()
    study, frame = generate_uid(), generate_uid()
    direction = np.reshape(image.GetDirection(), (3, 3))
    x, y, z = image.GetSpacing()
    for number, pixels in enumerate(sitk.GetArrayFromImage(image)):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.Modality, ds.StudyDate, ds.SeriesNumber = "CT", day, 4
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PatientSex, ds.PositionReferenceIndicator = "F", ""
        for keyword, value in IDENTIFIERS.items():
            setattr(ds, keyword, value)
        ds.InstanceNumber = number + 1
        ds.ImagePositionPatient = [float(v) for v in image.TransformIndexToPhysicalPoint((0, 0, number))]
        ds.ImageOrientationPatient = [*direction[:, 0].tolist(), *direction[:, 1].tolist()]
        ds.PixelSpacing, ds.SliceThickness = [y, x], z
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 15, 0, 1, -1024
        ds.PixelData = (pixels.astype(int) + 1024).astype(np.uint16).tobytes()
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / f"IM{number:04d}", enforce_file_format=True)
    return folder


def headers_of(folder: Path) -> list[Any]:
    """Headers of a series."""
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]


def tiny_model(
    folder: Path,
    *,
    dims: int = 3,
    folds: tuple[int, ...] = (0,),
    ending: str = ".nii.gz",
    reader: str = "SimpleITKIO",
    **description: Any,
) -> Path:
    """A model folder at random weights, with one class unless told otherwise, for volumes or pictures."""
    channel = "grey_ct" if ending == ".png" else "CT"
    description = {**dataset_json(), "file_ending": ending, "channel_names": {"0": channel}, **description}
    plans = complete_plans(description, dims=dims, stages=3, patch=[16] * dims, spacing=[3.0] * dims)
    plans["image_reader_writer"] = "NaturalImage2DIO" if ending == ".png" else reader
    return write_model(folder, plans, description, folds=folds)


def saved(folder: Path, chest: BoxChest) -> Path:
    """The chest as a NIfTI file."""
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(chest.image, str(folder / "chest.nii.gz"))
    return folder / "chest.nii.gz"
