"""Where a report's scan comes from: a volume file, or the one CT series of a DICOM folder that is worth reporting.

A folder as a scanner or an archive leaves it holds several series: the axial CT series with the most slices is taken,
an original one before those that are derived from it, and what was passed over is said. A folder without DICOM stands
for the one volume file in it. Which series there are and whether one is a whole volume stands in
:mod:`nnunet_covid.raw_dataset`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_covid.endings import VOLUME_ENDINGS, ending_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, is_hidden, own_name, printable, sha256_of, some_of
from nnunet_covid.raw_dataset.case_folders import ARCHIVES
from nnunet_covid.raw_dataset.dicom import DicomFile, header_of, is_dicom
from nnunet_covid.raw_dataset.dicom_folder import DicomFolder, Series, dicom_folder
from nnunet_covid.raw_dataset.dicom_series import read_series
from nnunet_covid.raw_dataset.grey_scale import AIR_BELOW
from nnunet_covid.raw_dataset.source import stem_of
from nnunet_covid.raw_dataset.volumes import read_volume
from nnunet_covid.report.clock import Clock
from nnunet_covid.report.document import FILE, ScanFacts
from nnunet_covid.volume_files import data_files, without_sides

AXIAL = 0.8
"""Cosine between the normal of a slice and the body's axis from which on a series counts as axial."""
FEWEST_SLICES = 3
PROJECTION = re.compile(r"MIP(?![A-Z])|M(AX|IN)[ _]?IP|\bM(AX|IN)IMUM\b|(VOLUME|SURFACE)_RENDER", re.IGNORECASE)
"""In ImageType: each slice shows the extremes of a slab or a rendering, not the tissue."""
HOUNSFIELD = ("", "HU", "US")
"""RescaleType of Hounsfield units; US is not specified."""


@dataclass(frozen=True)
class Scan:
    """A CT volume and what is known of it.

    Attributes:
        image: Hounsfield units.
        facts: For the document.
        files: Of the DICOM series; empty for a volume file.
        clock: Of the report on it.
    """

    image: sitk.Image
    facts: ScanFacts
    files: tuple[Path, ...] = ()
    clock: Clock = field(default_factory=Clock)


def read_scan(source: Path, series: str | None = None) -> Scan:
    """The scan that a file or folder holds.

    Args:
        source: A NIfTI, NRRD or MetaImage file, or a folder of DICOM files, or of one such file, at any depth.
        series: Series Instance UID; the axial CT series with the most slices, an original one, if not given.

    Raises:
        UserError: In one sentence, if there is no such scan or it cannot be used.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; name a CT volume or a DICOM folder")
    clock = Clock()
    with clock.on("reading"):
        return replace(_read(source, series), clock=clock)


def content_of(source: Path) -> dict[str, str]:
    """Place and SHA-256 of every file that a scan is read from; those that are not there are left out."""
    folder = source if source.is_dir() else source.parent
    if source.is_dir():
        files = files_in(source, below=True)
    elif _is_slice(source):
        series = (one for one in dicom_folder(folder).series if _uid(one) == _series_of(source))
        files = [file.path for one in series for file in one.files]
    else:
        files = [source, *data_files(source)]
    return {os.path.relpath(path, folder): sha256_of(path) for path in files if path.is_file()}


def report_or_scan(path: Path) -> Path | Scan:
    """An earlier report as it is, by its folder or ``report.json``; anything else is read as a scan.

    Raises:
        UserError: As of :func:`read_scan`.
    """
    is_report = (path / FILE).exists() if path.is_dir() else path.suffix == ".json"
    return path if is_report else read_scan(path)


def _read(source: Path, series: str | None) -> Scan:
    if source.is_dir():
        return _from_folder(source, series)
    if series is not None:
        raise UserError(f"{source} is a file; a series can only be chosen in a DICOM folder")
    if _is_slice(source):
        return _from_folder(source.parent, _series_of(source))
    if ending_of(source, VOLUME_ENDINGS) is None and ending_of(source, ARCHIVES):
        raise UserError(f"{source} is packed; unpack it, and name the folder or the volume that was in it")
    if ending_of(source, VOLUME_ENDINGS) is None:
        raise UserError(f"{source} is no NIfTI, NRRD or MetaImage volume, and no DICOM file; save it as one of these")
    return _from_file(source)


def _is_slice(source: Path) -> bool:
    """Whether a file stands for a DICOM series beside it."""
    return ending_of(source, VOLUME_ENDINGS) is None and is_dicom(source)


def _series_of(source: Path) -> str:
    return str(header_of(source, "SeriesInstanceUID").get("SeriesInstanceUID") or "")


def _from_file(path: Path) -> Scan:
    image = read_volume(path)
    if fault := without_sides(path):
        raise UserError(f"{path} {fault}; write its orientation into the header, or save it again from its source")
    _require_ct(image, path)
    return Scan(image, ScanFacts(stem_of(path), image.GetSize(), _rounded(image.GetSpacing())))


def volumes_below(folder: Path) -> list[Path]:
    """The volume files of a folder, at any depth."""
    return [path for path in files_in(folder, below=True) if ending_of(path, VOLUME_ENDINGS)]


def _from_folder(folder: Path, wanted: str | None) -> Scan:
    content = dicom_folder(folder)
    if wanted is None and not content.series and len(volumes := volumes_below(folder)) == 1:
        scan = _from_file(volumes[0])
        notes = [f"Reported on {volumes[0].relative_to(folder)}.", *_notes_on_others(folder, content, volumes[0])]
        return replace(scan, facts=replace(scan.facts, name=own_name(folder), notes=tuple(map(printable, notes))))
    chosen, notes = _chosen(folder, content, wanted)
    image = read_series(chosen)
    _require_ct(image, folder)
    header = header_of(chosen.files[0].path, "StudyDate")
    facts = ScanFacts(
        name=own_name(folder),
        size=image.GetSize(),
        spacing=_rounded(image.GetSpacing()),
        study_date=_iso_date(str(header.get("StudyDate", ""))),
        notes=tuple(printable(note) for note in (f"Reported on {_described(chosen, folder)}.", *notes)),
    )
    return Scan(image, facts, tuple(file.path for file in chosen.files))


def _chosen(folder: Path, content: DicomFolder, wanted: str | None) -> tuple[Series, list[str]]:
    """The series to report on, and a sentence for each that was passed over."""
    if not content.series:
        if volumes := volumes_below(folder):
            listed = some_of(path.relative_to(folder).as_posix() for path in volumes)
            remedy = "name one of them, or the folder that they lie in for a report on each"
            raise UserError(f"{folder} holds no DICOM image, but {len(volumes)} volumes ({listed}); {remedy}")
        raise UserError(
            f"{folder} holds no DICOM image{content.other_than_series()}; name a CT series' folder or a volume file"
        )
    whole = [_without_localizers(one) for one in content.series]
    reasons = {_uid(one): _unfit(one) for one in whole}
    if wanted is not None:
        found = next((one for one in whole if _uid(one) == wanted), None)
        if found is None:
            raise UserError(f"{folder} holds no series {wanted}; it holds {', '.join(sorted(reasons))}")
        if reasons[wanted]:
            raise UserError(f"{folder}: {_described(found, folder)} cannot be reported on: {reasons[wanted]}")
        _require_whole(found, content.unusable)
        return found, _notes_on_localizers(found, content, folder)
    fit = [one for one in whole if reasons[_uid(one)] is None]
    if not fit:
        listed = "; ".join(f"{_described(one, folder)}: {reasons[_uid(one)]}" for one in whole)
        raise UserError(f"{folder} holds no axial CT series ({listed}); name a folder with one")
    patients = {file.patient for one in fit for file in one.files} - {""}
    if len(patients) > 1:
        listed = some_of(f"{_uid(one)}: {_described(one, folder)}" for one in fit)
        remedy = "choose one with --series UID, or give a folder for each patient"
        raise UserError(f"{folder} holds CT series of {len(patients)} patients ({listed}); {remedy}")
    enough = max(map(_height, fit)) / 2
    best = max(fit, key=lambda one: (_height(one) >= enough, not _is_derived(one), _slices(one), _uid(one)))
    _require_whole(best, content.unusable)
    passed = [(one, reasons[_uid(one)] or _lesser(one, best)) for one in whole if one is not best]
    notes = [f"Passed over {_described(one, folder)}: {reason}." for one, reason in passed]
    return best, [*notes, *_notes_on_localizers(best, content, folder), *_notes_on_others(folder, content)]


def _notes_on_others(folder: Path, content: DicomFolder, used: Path | None = None) -> list[str]:
    """A sentence for each damaged file, one for all volumes and archives, and one for empty folders, beside a scan."""
    files = [path for path, _ in content.left_out if path != used and ending_of(path, (*VOLUME_ENDINGS, *ARCHIVES))]
    entries = (path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))
    empty = [path for path in entries if not files_in(path, below=True)]
    notes = [f"Passed over {path.relative_to(folder)}: {reason}." for path, reason in content.unusable]
    for paths, what in ((files, "no DICOM"), (empty, "empty")):
        if paths:
            notes.append(f"Passed over {some_of(path.relative_to(folder).as_posix() for path in paths)}: {what}.")
    return notes


def _without_localizers(one: Series) -> Series:
    """A series without the localizers that some scanners give its UID; localizers alone stay a series."""
    slices = tuple(file for file in one.files if "LOCALIZER" not in file.kinds)
    return replace(one, files=slices or one.files)


def _notes_on_localizers(chosen: Series, content: DicomFolder, folder: Path) -> list[str]:
    files = (file for one in content.series if _uid(one) == _uid(chosen) for file in one.files)
    return [f"Passed over {file.path.relative_to(folder)}: a localizer." for file in files if "LOCALIZER" in file.kinds]


def _require_whole(one: Series, unusable: Iterable[tuple[Path, str]]) -> None:
    """Tell a file beside the slices that cannot be read: it may be the last of them, which no gap shows.

    Told is a slice in other units than most, too.
    """
    if odd := [file for file in one.files if file.units.upper() not in HOUNSFIELD]:
        reason = f"its values are {odd[0].units} (RescaleType), those of most slices Hounsfield units; take it out"
        raise UserError(f"{odd[0].path}: {reason}")
    folders = {file.path.parent for file in one.files}
    for path, reason in unusable:
        if path.parent in folders:
            raise UserError(f"{path}: {reason}")


def _uid(one: Series) -> str:
    return one.files[0].series


def _slices(one: Series) -> int:
    return sum(len(file.frames) for file in one.files)


def _lesser(one: Series, best: Series) -> str:
    """Why another series of the fit ones is reported on."""
    if _is_derived(one) and not _is_derived(best):
        return "derived, not original"
    return "not more slices" if _slices(one) <= _slices(best) else "of a smaller part of the body"


def _is_derived(one: Series) -> bool:
    return "DERIVED" in _usual(one, attrgetter("kinds"))


def _height(one: Series) -> float:
    """Between the lowest and the highest slice, mm: a few slices that follow the contrast are no scan of the chest."""
    places = [frame.position[2] for file in one.files for frame in file.frames if frame.position]
    return max(places, default=0.0) - min(places, default=0.0)


def _described(one: Series, folder: Path) -> str:
    """Where it lies, and what the scanner called it."""
    header = header_of(one.files[0].path, "SeriesDescription")
    named = str(header.get("SeriesDescription", "")).strip()
    return f"{one.described(folder)}{f' {named!r}' if named else ''}"


def _usual(one: Series, value: Callable[[DicomFile], Any]) -> Any:
    """What most files of a series say: a screenshot among them must not speak for all."""
    return Counter(map(value, one.files)).most_common(1)[0][0]


def _unfit(one: Series) -> str | None:
    """Why a series is not reported on; None if it can be."""
    modality, kinds, units = (_usual(one, attrgetter(name)) for name in ("modality", "kinds", "units"))
    if modality != "CT":
        return f"modality {modality or 'unknown'}, not CT"
    if "LOCALIZER" in kinds:
        return "a localizer"
    if projections := [kind for kind in kinds if PROJECTION.search(kind)]:
        return f"a projection ({projections[0]}), not the tissue itself"
    if units.upper() not in HOUNSFIELD:
        return f"its values are {units} (RescaleType), no Hounsfield units"
    if _slices(one) < FEWEST_SLICES:
        return f"only {_slices(one)} slice{'s' * (_slices(one) > 1)}"
    orientation = _usual(one, lambda file: file.frames[0].orientation)
    if orientation is not None and abs(np.cross(orientation[:3], orientation[3:])[2]) < AXIAL:
        return "not axial"
    frames = one.files[0].frames if len(one.files) == 1 else ()
    if any(frame.position is None or frame.orientation is None for frame in frames):
        return "its frames do not say where they lie, so right and left would be guesses; export one file per slice"
    return None


def _require_ct(image: sitk.Image, path: Path) -> None:
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise UserError(f"{path} is flat ({' x '.join(map(str, image.GetSize()))} voxels); a report needs a volume")
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds voxels that are no finite numbers; export it again")
    if values.min() >= AIR_BELOW:
        found = f"{values.min():g} to {values.max():g}"
        raise UserError(f"{path} holds values from {found}, no Hounsfield units of a chest; export it with them")


def _iso_date(text: str) -> str:
    text = text.replace(".", "")  # as ACR-NEMA wrote them
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdecimal() else ""


def _rounded(spacing: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in spacing)
