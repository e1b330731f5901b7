"""DICOM files: what each is by its header, and where its frames lie. Series and their checks: ``dicom_series``.

pydicom reads the headers, which ITK shows only in part and fills with guesses where something is missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

Numbers = tuple[float, ...]

OBJECTS = {
    "DOC": "a document",
    "KO": "a list of key images",
    "PR": "a display setting",
    "REG": "a registration",
    "RTDOSE": "a dose distribution",
    "RTPLAN": "a treatment plan",
    "RTRECORD": "a treatment record",
    "RTSTRUCT": "a structure set",
    "SEG": "a segmentation",
    "SR": "a report",
}
"""Modalities that are no images (PS3.3, C.7.3.1.1.1), in words."""
MASK_OBJECTS = ("RTSTRUCT", "SEG")
INDEX = "1.2.840.10008.1.3.10"
"""SOP class of DICOMDIR, the index of a disc."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENDINGS = (".dcm", ".dicom", ".ima")
"""Nothing else goes by these names."""
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
UNDEFINED = 0xFFFFFFFF
"""Length of compressed pixel data."""
MOST_FRAMES = 1 << 16
FIRST_GROUPS = {(group).to_bytes(2, order) for group in (2, 8) for order in ("little", "big")}
"""With which a file without preamble begins."""
TOLD_APART_BY = ("SeriesNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "ConvolutionKernel")
PATIENT = ("PatientID", "IssuerOfPatientID")
ELEMENTS = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "DirectoryRecordSequence"),
    *PATIENT,
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *TOLD_APART_BY,
)
TAGS: list[BaseTag | int] = [Tag(name) for name in ELEMENTS]

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True)
class Frame:
    """Where one frame lies, in millimetres and the patient's axes, and its scale; ``None`` where that is not said.

    Attributes:
        position: Of its first pixel, (x, y, z).
        orientation: Cosines of a row's direction, then of a column's.
        spacing: Distance of rows, and of columns.
        distance: To the next frame; the thickness where that is not given.
        rescale: Slope and intercept of what is stored.
    """

    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    distance: Numbers | None
    rescale: Numbers | None


@dataclass(frozen=True)
class DicomFile:
    """What the header of a DICOM file says.

    Attributes:
        path: The file.
        modality: ``CT`` and so on; empty where it is not given.
        sop_class: UID of the kind of object.
        kinds: The values of ImageType, such as ``LOCALIZER``.
        series: UID of the series.
        patient: Identifier of the patient, with its issuer where that is given; empty where there is none.
        syntax: UID of the transfer syntax; empty without a meta header.
        size: Columns and rows.
        samples: Values per pixel.
        colours: PhotometricInterpretation.
        frames: One or more.
        pixel_bytes: Length of the pixel data; ``None`` where there are none.
        bytes_needed: Length that the size asks for, uncompressed.
        units: Of the rescaled values, such as ``HU``; empty where that is not given.
        stored: How many bits a value has, and whether it has a sign.
        marks: Values of ``TOLD_APART_BY``.
        damaged: Whether the header cannot be read.
    """

    path: Path
    modality: str = ""
    sop_class: str = ""
    kinds: tuple[str, ...] = ()
    series: str = ""
    patient: str = ""
    syntax: str = ""
    size: tuple[int, int] = (0, 0)
    samples: int = 1
    colours: str = ""
    frames: tuple[Frame, ...] = ()
    pixel_bytes: int | None = None
    bytes_needed: int = 0
    units: str = ""
    stored: tuple[str, str] = ("", "")
    marks: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def no_image(self) -> str | None:
        """What the file is, where it is a sound object without an image; ``None`` for images and damaged files."""
        if self.damaged:
            return None
        if self.sop_class == INDEX:
            return "the index of a disc (DICOMDIR)"
        if self.modality in OBJECTS:
            remedy = "; export it as NIfTI to use it as a mask" if self.modality in MASK_OBJECTS else ""
            return f"{OBJECTS[self.modality]} ({self.modality}){remedy}"
        return None if self.pixel_bytes is not None or self.size != (0, 0) else "a DICOM object without an image"

    @property
    def description(self) -> str:
        """What kind of image it is, in a few words."""
        if "LOCALIZER" in self.kinds:
            return "a scout"
        if self.sop_class.startswith(SECONDARY_CAPTURE):
            return "a secondary capture"
        if "DERIVED" in self.kinds:
            return f"{self.modality}, derived"
        return self.modality or "of no modality"


def read_dicom(path: Path) -> DicomFile | None:
    """The header of a DICOM file; ``None`` for any other file. The content decides, with or without preamble."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _read(path, status.st_size, status.st_mtime_ns)


def header_of(path: Path, *keywords: str) -> Any:
    """The data set of a DICOM file without its pixels, with or without preamble; the elements named, or all.

    Where no meta header names the transfer syntax, it is the one of the bytes.
    """
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(keywords) or None)
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def patient_of(header: Any) -> str:
    """Who a header is about: identifier of the patient, with its issuer where given; empty where there is none."""
    patient, issuer = (str(header.get(name) or "").strip() for name in PATIENT)
    return " of ".join(filter(None, (patient, issuer))) if patient else ""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; the ending says nothing."""
    return path.is_file() and read_dicom(path) is not None


@lru_cache(maxsize=1 << 16)
def _read(path: Path, size: int, changed: int) -> DicomFile | None:
    pixel_bytes: list[int] = []

    def at_pixels(tag: int, _: str | None, length: int) -> bool:
        if tag in PIXELS:
            pixel_bytes.extend((length, size - stream.tell()))
        return tag >= min(PIXELS)

    with path.open("rb") as stream, warnings.catch_warnings():
        start = stream.read(132)
        has_magic = start[128:] == b"DICM"
        if not has_magic and start[:2] not in FIRST_GROUPS:
            return None
        stream.seek(0)
        warnings.simplefilter("ignore")
        try:
            header = read_partial(stream, at_pixels, force=True, specific_tags=TAGS)
            found = _of_header(path, header, pixel_bytes)
        except Exception:  # pydicom has no exception of its own for the many ways in which a header can be damaged
            return DicomFile(path, damaged=True) if has_magic else None
    is_image = UID(found.sop_class).name.endswith("Image Storage") or not (found.sop_class or found.modality)
    if is_image and found.size == (0, 0):
        return DicomFile(path, damaged=True) if has_magic else None
    return found


def _of_header(path: Path, header: Any, pixel_bytes: list[int]) -> DicomFile:
    """Of what pydicom read, and the length of the pixel data, announced and to the end of the file."""
    meta = header.file_meta
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if pixel_bytes and (pixel_bytes[0] == UNDEFINED or syntax == DeflatedExplicitVRLittleEndian):
        pixel_bytes = pixel_bytes[:1]
    columns, rows, samples = (int(header.get(name) or 0) for name in ("Columns", "Rows", "SamplesPerPixel"))
    count, bits = (int(header.get(name) or 0) for name in ("NumberOfFrames", "BitsAllocated"))
    count, samples = max(1, count), max(1, samples)
    if count > MOST_FRAMES:
        raise ValueError("more frames than any scanner makes")
    kinds = header.get("ImageType") or ()
    return DicomFile(
        path,
        modality=str(header.get("Modality") or "").strip(),
        sop_class=str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""),
        kinds=(kinds,) if isinstance(kinds, str) else tuple(map(str, kinds)),
        series=str(header.get("SeriesInstanceUID") or ""),
        patient=patient_of(header),
        syntax=syntax,
        size=(columns, rows),
        samples=samples,
        colours=str(header.get("PhotometricInterpretation") or ""),
        frames=tuple(_frames(header, count)),
        pixel_bytes=min(pixel_bytes) if pixel_bytes else None,
        bytes_needed=columns * rows * samples * count * bits // 8,
        units=_units(header),
        stored=(str(header.get("BitsStored")), str(header.get("PixelRepresentation"))),
        marks=tuple(str(header.get(name) or "") for name in TOLD_APART_BY),
    )


def _units(header: Dataset) -> str:
    """RescaleType of the header itself, of the groups that all frames share, or of the first frame's."""

    def first(place: Dataset, sequence: str) -> Dataset:
        return next(iter(place.get(sequence) or ()), Dataset())

    groups = (first(header, "SharedFunctionalGroupsSequence"), first(header, "PerFrameFunctionalGroupsSequence"))
    places = (header, *(first(group, "PixelValueTransformationSequence") for group in groups))
    return next((str(found) for place in places if (found := place.get("RescaleType"))), "").strip()


def _frames(header: Dataset, count: int) -> Iterator[Frame]:
    """By the groups of each frame, else by those that all frames share, else by the header itself."""
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if not per_frame:
        first = _frame((shared, header))
        alone = Frame(None, first.orientation, first.spacing, first.distance, first.rescale)
        yield first
        yield from [alone] * (count - 1)
        return
    if len(per_frame) != count:
        raise ValueError("as many groups as frames are needed")
    for own in per_frame:
        yield _frame((own, shared, header))


def _frame(places: tuple[Dataset, ...]) -> Frame:
    def numbers(group: str, *names: str) -> Numbers | None:
        for place in places:
            inner = next(iter(place.get(group) or ()), None) if group in place else place
            found = [_numbers(inner, name) for name in names] if inner is not None else []
            if found and all(values is not None for values in found):
                return tuple(value for values in found for value in values or ())
        return None

    def of_length(values: Numbers | None, length: int) -> Numbers | None:
        return values if values is not None and len(values) == length else None

    distance = numbers("PixelMeasuresSequence", "SpacingBetweenSlices") or numbers(
        "PixelMeasuresSequence", "SliceThickness"
    )
    rescale = of_length(numbers("PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept"), 2)
    return Frame(
        of_length(numbers("PlanePositionSequence", "ImagePositionPatient"), 3),
        of_length(numbers("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        of_length(numbers("PixelMeasuresSequence", "PixelSpacing"), 2),
        of_length(distance, 1),
        rescale if rescale and rescale[0] != 0 else None,
    )


def _numbers(place: Dataset, name: str) -> Numbers | None:
    """The finite numbers of an element; ``None`` where there are none, or others."""
    try:
        found = tuple(float(value) for value in np.atleast_1d(np.asarray(place.get(name), dtype=float)))
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found and np.isfinite(found).all() else None


def has_sound_rle(file: DicomFile) -> bool:
    """Whether every frame begins as run-length encoding must: one segment per byte of a pixel (PS3.5, annex G).

    GDCM divides by the number of segments; a damaged one would end the process.
    """
    columns, rows = file.size
    segments = file.bytes_needed // (columns * rows * len(file.frames))
    try:
        pixels = pydicom.dcmread(file.path, force=True, specific_tags=["PixelData"]).PixelData
        found = [
            int.from_bytes(frame[:4], "little") for frame in generate_frames(pixels, number_of_frames=len(file.frames))
        ]
    except Exception:  # as above
        return False
    return segments > 0 and found == [segments] * len(file.frames)


def name_of_syntax(syntax: str) -> str:
    """What a transfer syntax is called."""
    return str(UID(syntax).name) if syntax else "unknown"
