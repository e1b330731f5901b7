"""A report as DICOM objects beside its series: segmentation, measurement report (TID 1500), pictures of key slices.

highdicom, an optional extra, writes them; what they are about is taken from the headers of the series.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import replacing
from nnunet_covid.raw_dataset.dicom import header_of

MANUFACTURER = "nnunet_covid"
CHARACTER_SET = "ISO_IR 192"
MAY_BE_EMPTY = {
    "PatientName": ".*", "PatientID": ".*", "PatientBirthDate": r"\d{8}", "PatientSex": "[MFO]", "StudyID": ".*",
    "StudyDate": r"\d{8}", "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", "AccessionNumber": ".*",
    "ReferringPhysicianName": ".*",
}  # fmt: skip
"""Attributes that objects inherit and that may be empty, and the form of their values."""
NO_DAY, MIDNIGHT = "19000101", "000000"
"""Of pseudonymised objects, which must have a date, where the study has none; the time of all."""
SHARED = ("ImageOrientationPatient", "PixelSpacing")
"""Attributes that objects want the same of all slices, and which scanners round differently."""
NOT_STATED = "not stated in the source series"
SEGMENTATION, MEASUREMENTS, CAPTURES = "segmentation.dcm", "measurements.dcm", "capture_{:02d}.dcm"
SERIES_NUMBERS = {"SEG": 9001, "SR": 9002, "SC": 9003}
DESCRIPTIONS = {"SEG": "label map", "SR": "measurements", "SC": "key slices"}
FINDINGS = {
    "ground glass": ("112120", "DCM", "Ground glass opacity"),
    "ggo": ("112120", "DCM", "Ground glass opacity"),
    "consolidation": ("95436008", "SCT", "Lung consolidation"),
}
"""Code of a class whose name holds the word; any other class is coded as a lesion."""
LESION = ("52988006", "SCT", "Lesion")
ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMY = ("123037004", "SCT", "Anatomical Structure")
LUNG = ("39607008", "SCT", "Lung")
SITES = {
    "upper lobe": ("45653009", "SCT", "Upper lobe of lung"),
    "middle lobe": ("72481006", "SCT", "Middle lobe of right lung"),
    "lower lobe": ("90572001", "SCT", "Lower lobe of lung"),
}
SIDES = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}
CT_OF_CHEST = ("169069000", "SCT", "CT of chest")
VOLUME = ("118565006", "SCT", "Volume")
SHARE = ("infection-percent", "99NNCOVID", "Infection as per cent of the region")
AFFECTED = ("infection-volume", "99NNCOVID", "Infection volume inside the region")
ML, PERCENT = ("mL", "UCUM", "mL"), ("%", "UCUM", "%")


@dataclass(frozen=True)
class Source:
    """The series that the objects are about.

    Attributes:
        headers: Of its files, without pixels, in the order of the volume's slices; one for a multi-frame file.
        frame_order: Index of each frame of a multi-frame file in the order of the volume's slices; None otherwise.
    """

    headers: Sequence[Any]
    frame_order: Sequence[int] | None = None

    @classmethod
    def read(cls, files: Sequence[Path], image: sitk.Image) -> Source:
        """Headers of a series, sorted as the volume's third axis runs."""
        headers = [header_of(path) for path in files]
        if len(headers) > 1 and "PerFrameFunctionalGroupsSequence" in headers[0]:
            raise _without_objects("Enhanced CT with a file for each frame")
        for header in headers:
            _complete(header, image.GetSpacing()[2])
        _frame_of_reference(headers)
        normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
        if len(headers) > 1:
            headers.sort(key=lambda one: float(np.dot(one.ImagePositionPatient, normal)))
            for header, keyword in product(headers[1:], SHARED):
                header[keyword] = headers[0][keyword]
            return cls(headers)
        groups = headers[0].PerFrameFunctionalGroupsSequence
        heights = [float(np.dot(group.PlanePositionSequence[0].ImagePositionPatient, normal)) for group in groups]
        return cls(headers, list(np.argsort(heights)))

    def frames(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A volume (z, y, x) with its slices in the order of the files or frames."""
        return volume if self.frame_order is None else volume[np.argsort(self.frame_order)]


@contextmanager
def headers_told() -> Iterator[None]:
    """Make one sentence of what headers lack: they are what whoever wrote them made of them."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        lacking = f"{e.name} is missing" if isinstance(e, AttributeError) and e.name else reason_of(e)
        raise _without_objects(lacking) from e


def _without_objects(why: str) -> UserError:
    return UserError(
        f"no DICOM objects can be made from the headers of this series ({why}); "
        "export it again, or convert it to NIfTI and report on that"
    )


def _complete(header: Any, thickness: float) -> None:
    """Bring what objects inherit from a header into a state in which they may have it.

    Archives hold series that lack attributes which may be empty but not missing (type 2), or whose dates and sexes are
    no such values; these become empty. Texts are brought to UTF-8, whatever their character set was.
    """
    header.decode()
    header.SpecificCharacterSet = CHARACTER_SET
    for keyword, form in MAY_BE_EMPTY.items():
        value = str(header.get(keyword) or "")
        if keyword.endswith("Date"):
            value = value.replace(".", "")  # as ACR-NEMA wrote them
        setattr(header, keyword, value if re.fullmatch(form, value) and _is_date(keyword, value) else "")
    if header.get("SliceThickness") is None:
        header.SliceThickness = pydicom.valuerep.DSfloat(thickness, auto_format=True)
    if header.get("PatientIdentityRemoved") == "YES" and not _says_how(header):
        header.DeidentificationMethod = NOT_STATED  # of type 1C: objects that inherit the first need it


def _frame_of_reference(headers: Sequence[Any]) -> None:
    """Give slices without a frame of reference that of the others, or all one of their own."""
    own = pydicom.uid.generate_uid(entropy_srcs=[headers[0].SeriesInstanceUID, "frame"])
    found = next((one.FrameOfReferenceUID for one in headers if one.get("FrameOfReferenceUID")), own)
    for header in headers:
        header.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or found


def _is_date(keyword: str, value: str) -> bool:
    """Whether a value is a day of the calendar, where the attribute is a date that is not empty."""
    if not (keyword.endswith("Date") and value):
        return True
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


def _says_how(header: Any) -> bool:
    """Whether a header says how identities were removed."""
    return any(header.get(keyword) for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence"))


def dicom_extra() -> Any:
    """The package highdicom.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import highdicom
        import highdicom.sc
        import highdicom.seg
        import highdicom.sr
    except ImportError as e:
        raise UserError("DICOM objects need a further package: pip install 'nnunet_covid[dicom]'") from e
    return highdicom


def write_objects(
    folder: Path,
    source: Source,
    document: Mapping[str, Any],
    masks: Mapping[str, NDArray[np.bool_]],
    lungs: NDArray[np.bool_],
    pictures: Sequence[NDArray[np.uint8]],
) -> list[Path]:
    """Write all objects into a folder that exists.

    Args:
        folder: Where.
        source: The series.
        document: As ``Document.as_json`` gives it.
        masks: Of each class (z, y, x) on the series' grid.
        lungs: Their mask on the same grid.
        pictures: Key slices (y, x, 3).

    Returns:
        The files, the segmentation first.

    Raises:
        UserError: If the headers do not allow it.
    """
    with headers_told(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom prints a patient's name that it finds unusual
        objects = {SEGMENTATION: segmentation(source, document, masks, lungs)}
        objects[MEASUREMENTS] = measurements(source, document, objects[SEGMENTATION], list(masks))
        series = dicom_extra().UID()
        objects |= {CAPTURES.format(i): capture(source, one, i, series) for i, one in enumerate(pictures, start=1)}
    for name, content in objects.items():
        content.SpecificCharacterSet = CHARACTER_SET
        if document["scan"]["pseudonymous"]:
            _date_to_study(content)
        with replacing(folder / name) as unfinished:
            content.save_as(unfinished, enforce_file_format=True)
    return [folder / name for name in objects]


def _date_to_study(content: Any) -> None:
    """Every date and time of an object is the study's day at midnight.

    Today's beside a moved study date would tell by how many days it was moved, where a report follows soon on its scan.
    """
    day = str(content.StudyDate or NO_DAY)
    at = {"DA": day, "TM": MIDNIGHT, "DT": day + MIDNIGHT}
    for element in content.iterall():
        if element.VR in at and element.value:
            element.value = at[element.VR]


def _code(code: tuple[str, str, str]) -> Any:
    return dicom_extra().sr.CodedConcept(*code)


def _description(kind: str, source: Source) -> str:
    """What a series of objects is called; the number of their source tells those of several reconstructions apart."""
    number = source.headers[0].get("SeriesNumber")
    return f"Lung infection, {DESCRIPTIONS[kind]}{'' if number in (None, '') else f', of series {number}'}"


def _made_by(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": document["model"]["name"][:64],
        "software_versions": document["software"]["nnunet_covid"],
        "device_serial_number": document["model"]["digest"],
    }


def finding_of(name: str) -> tuple[str, str, str]:
    """The code of a class by its name."""
    words = name.lower().replace("_", " ").replace("-", " ")
    return next((code for word, code in FINDINGS.items() if word in words), LESION)


def segmentation(
    source: Source,
    document: Mapping[str, Any],
    masks: Mapping[str, NDArray[np.bool_]],
    lungs: NDArray[np.bool_],
) -> Any:
    """A binary segmentation with one segment for each class, empty ones too, and one for the lungs."""
    hd = dicom_extra()
    algorithm = hd.AlgorithmIdentificationSequence(
        name=document["model"]["name"][:64],
        family=_code(("123110", "DCM", "Artificial Intelligence")),
        version=document["model"]["digest"],
        source=MANUFACTURER,
    )
    segments = [(name, ABNORMAL, finding_of(name), mask) for name, mask in masks.items()]
    segments.append(("lungs", ANATOMY, LUNG, lungs))
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=_code(category),
            segmented_property_type=_code(kind),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=hd.UID(),
            tracking_id=name[:64],
        )
        for number, (name, category, kind, _) in enumerate(segments, start=1)
    ]
    pixels = np.stack([source.frames(mask) for *_, mask in segments], axis=-1).astype(np.uint8)
    return hd.seg.Segmentation(
        source_images=source.headers,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        series_description=_description("SEG", source),
        content_description="Lung infection",
        omit_empty_frames=True,
        **_made_by(document),
    )


def measurements(source: Source, document: Mapping[str, Any], segments: Any, classes: Sequence[str]) -> Any:
    """The numbers as a structured report by template 1500: one group per class, then one per region."""
    hd = dicom_extra()
    numbers = document["quantities"]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                observer_type=_code(("121007", "DCM", "Device")),
                observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                    uid=hd.UID(), name=MANUFACTURER, model_name=document["model"]["name"][:64]
                ),
            )
        ),
        procedure_reported=_code(CT_OF_CHEST),
        imaging_measurements=[
            *(_class_group(number, name, numbers, segments) for number, name in enumerate(classes, start=1)
              if numbers["classes_ml"][name] > 0),
            *(_region_group(region) for region in numbers["regions"]),
        ],
        title=_code(("126000", "DCM", "Imaging Measurement Report")),
    )  # fmt: skip
    return hd.sr.Comprehensive3DSR(
        evidence=[*source.headers, segments],
        content=report,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=_description("SR", source),
        manufacturer=MANUFACTURER,
    )


def _class_group(number: int, name: str, numbers: Mapping[str, Any], segments: Any) -> Any:
    hd = dicom_extra()
    described = segments.SegmentSequence[number - 1]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=described.TrackingUID, identifier=name),
        referenced_segment=hd.sr.ReferencedSegment.from_segmentation(segments, segment_number=number),
        finding_type=_code(finding_of(name)),
        measurements=[_measured(VOLUME, numbers["classes_ml"][name], ML)],
        finding_sites=[hd.sr.FindingSite(anatomic_location=_code(LUNG))],
    )


def _region_group(region: Mapping[str, Any]) -> Any:
    hd = dicom_extra()
    name = region["name"]
    side = next((code for word, code in SIDES.items() if name.startswith(word)), None)
    site = next((code for word, code in SITES.items() if name.endswith(word)), LUNG)
    values = [_measured(VOLUME, region["volume_ml"], ML), _measured(AFFECTED, region["infection_ml"], ML)]
    if region["infection_percent"] is not None:
        values.append(_measured(SHARE, region["infection_percent"], PERCENT))
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=name),
        measurements=values,
        finding_sites=[hd.sr.FindingSite(anatomic_location=_code(site), laterality=_code(side) if side else None)],
    )


def _measured(what: tuple[str, str, str], value: float, unit: tuple[str, str, str]) -> Any:
    return dicom_extra().sr.Measurement(name=_code(what), value=value, unit=_code(unit))


def capture(source: Source, picture: NDArray[np.uint8], number: int, series: str) -> Any:
    """A key slice as a secondary capture in colour; ``series`` is the UID of all captures of one report."""
    hd = dicom_extra()
    first = source.headers[0]
    image = hd.sc.SCImage(
        pixel_array=picture,
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        study_instance_uid=first.StudyInstanceUID,
        series_instance_uid=series,
        series_number=SERIES_NUMBERS["SC"],
        sop_instance_uid=hd.UID(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        patient_id=first.get("PatientID"),
        patient_name=first.get("PatientName"),
        patient_birth_date=first.get("PatientBirthDate") or None,
        patient_sex=first.get("PatientSex") or None,
        accession_number=first.get("AccessionNumber") or None,
        study_id=first.get("StudyID") or None,
        study_date=first.get("StudyDate") or None,
        study_time=first.get("StudyTime") or None,
        referring_physician_name=first.get("ReferringPhysicianName") or None,
        patient_orientation=("L", "P"),
        series_description=_description("SC", source),
    )
    if first.get("IssuerOfPatientID"):
        image.IssuerOfPatientID = first.IssuerOfPatientID
    image.Laterality = ""  # of type 2C: both lungs are shown
    return image
