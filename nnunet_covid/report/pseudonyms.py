"""Identifiers replaced by keyed digests: a patient keeps one pseudonym under one key, and no other key tells who.

HMAC-SHA256 of the identifier. Dates of one patient are all moved by the same number of days, so that the days between
two visits stay (PS3.15, Retain Longitudinal Temporal Information With Modified Dates). Of a DICOM header only what
:data:`KEPT` names goes on: everything that the Basic Profile of PS3.15 removes is gone because it is not kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.dicom import patient_of
from nnunet_covid.report.document import ScanFacts

SHORTEST_KEY = 16  # bytes
METHOD = "nnunet_covid: keyed digests, moved dates, geometry kept"
DIGITS = 12
MOST_DAYS = 3650
KEPT = (
    "SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "SeriesNumber", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "PatientPosition",
)  # fmt: skip
"""Attributes of a header that say nothing of a person; geometry, kind of image, scale."""
OTHERS = "Other content of the folder was passed over."
UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


class Pseudonymiser:
    """Replaces identifiers under one key.

    Args:
        key: Secret bytes.

    Raises:
        UserError: If the key is too short to keep a secret.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise UserError(f"the key has {len(key)} bytes, at least {SHORTEST_KEY} are needed")
        self._key = key

    @classmethod
    def of_file(cls, path: Path) -> Pseudonymiser:
        """With the key in a file, white space around it left out.

        Raises:
            UserError: If the file cannot be read or holds too little.
        """
        try:
            return cls(path.read_bytes().strip())
        except OSError as e:
            raise UserError(
                f"{path} cannot be read ({e.strerror}); make a key with: openssl rand -hex 32 > {path}"
            ) from e
        except UserError as e:
            raise UserError(f"{path}: {e}; make a key with: openssl rand -hex 32 > {path}") from e

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).digest()

    def name(self, identifier: str) -> str:
        """A pseudonym of a patient's or scan's identifier."""
        return "P" + base64.b32encode(self._digest("name", identifier)).decode()[:DIGITS]

    def uid(self, uid: str) -> str:
        """A UID in its stead, of the root for UUIDs (PS3.5, B.2)."""
        return f"2.25.{int.from_bytes(self._digest('uid', str(uid))[:16], 'big')}"

    def digest(self, uid: str, digits: int) -> str:
        """Hexadecimal digits in place of a UID, for names of folders and files."""
        return self._digest("digest", uid).hex()[:digits]

    def moved(self, day: str, patient: str) -> str:
        """A date, ``YYYYMMDD`` or ISO 8601, earlier by the patient's own number of days; empty if there is none."""
        days = 1 + int.from_bytes(self._digest("days", patient)[:4], "big") % MOST_DAYS
        try:
            plain = date.fromisoformat(f"{day[:4]}-{day[4:6]}-{day[6:8]}" if day.isdigit() else day)
            earlier = (plain - timedelta(days=days)).isoformat()
        except (ValueError, OverflowError):
            return ""
        return earlier.replace("-", "") if day.isdigit() else earlier

    def facts(self, facts: ScanFacts, header: Any | None) -> ScanFacts:
        """What a report says of a scan, without names: of files, folders and series neither.

        Args:
            facts: Of the scan.
            header: Of its series, as :meth:`header` gives it; None for a volume.
        """
        if header is None:
            name, day = self.name(facts.name), self.moved(facts.study_date, facts.name)
        else:
            name, moved = str(header.PatientID), str(header.StudyDate)
            day = f"{moved[:4]}-{moved[4:6]}-{moved[6:]}" if moved else ""
        notes = (OTHERS,) if len(facts.notes) > 1 else ()  # the first names what was reported on
        return replace(facts, name=name, study_date=day, identifiers={}, notes=notes, pseudonymous=True)

    def header(self, header: Any) -> Any:
        """A header of the same slice with nothing of the person in it."""
        from pydicom.dataset import Dataset, FileMetaDataset

        clean = Dataset()
        for keyword in KEPT:
            if keyword in header:
                clean[keyword] = header[keyword]
        for keyword in UIDS:
            if header.get(keyword):
                setattr(clean, keyword, self.uid(header.get(keyword)))
        patient = _patient(header)
        clean.PatientID = self.name(patient)
        clean.PatientName = f"{clean.PatientID}^"
        clean.PatientIdentityRemoved, clean.DeidentificationMethod = "YES", METHOD
        clean.PatientBirthDate = clean.PatientSex = clean.AccessionNumber = clean.StudyID = clean.StudyTime = ""
        clean.ReferringPhysicianName = clean.PositionReferenceIndicator = ""
        clean.StudyDate = self.moved(str(header.get("StudyDate", "")), patient)
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            if keyword in header:
                setattr(clean, keyword, [_geometry_of(group) for group in header.get(keyword)])
        clean.file_meta = FileMetaDataset()
        clean.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
        clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
        clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
        return clean


def _patient(header: Any) -> str:
    """What names a patient: the identifier with its issuer, else name and birth date, else the study.

    A name alone does not: where the identifier was taken out, many patients are called the same.
    """
    name, birth = header.get("PatientName"), header.get("PatientBirthDate")
    named = f"{name}\0{birth}" if name and birth else header.get("StudyInstanceUID")
    return patient_of(header) or str(named or "")


def _geometry_of(group: Any) -> Any:
    """A functional group with the frame's place and scale alone."""
    from pydicom.dataset import Dataset

    kept = Dataset()
    for keyword in (
        "PixelMeasuresSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelValueTransformationSequence",
    ):
        if keyword in group:
            kept[keyword] = group[keyword]
    return kept
