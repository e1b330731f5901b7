"""One report: label the scan, measure it, compare it with an earlier one, draw it, write its folder.

The order of things and the files' names stand here; each piece has its module.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_covid.disturbances import full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of, is_hidden, read_json, replacing_folder, some_of, write_text
from nnunet_covid.lung_mask import MODELS, automatic_method
from nnunet_covid.raw_dataset.dicom import PATIENT, header_of, patient_of
from nnunet_covid.report.anatomy import Anatomy, Classes
from nnunet_covid.report.change import changes, require_same_kind
from nnunet_covid.report.confidence import Profile, flags
from nnunet_covid.report.dicom_objects import SEGMENTATION, Source, dicom_extra, headers_told, write_objects
from nnunet_covid.report.document import FILE, SCHEMA, Document, read_document
from nnunet_covid.report.drawing import LABELS, LUNGS, PREVIEW, axial, key_slices, pictures, preview
from nnunet_covid.report.model import Group, Labelled, ReportModel
from nnunet_covid.report.page import page
from nnunet_covid.report.pseudonyms import Pseudonymiser
from nnunet_covid.report.quantify import LOBE_MAP, Quantities, Settings, quantities_of, require_fitting
from nnunet_covid.report.scans import Scan, content_of
from nnunet_covid.whole_volumes import write_volume

PAGE = "report.html"
DICOM = "dicom"
EARLIER = "previous"
FILES = {PAGE, FILE, LABELS, LUNGS, PREVIEW, DICOM, EARLIER}
"""What a report's folder may hold."""
IDENTIFIERS = ("PatientName", "PatientID", "PatientBirthDate")


@dataclass(frozen=True)
class Extras:
    """What a report may be given beside the scan.

    Attributes:
        lungs: Lung mask on the scan's grid.
        lobes: Lobe map on the scan's grid.
        previous: An earlier report of the same patient, its folder or ``report.json``; or an earlier scan, which is
            reported on first, into the folder ``previous`` of the report.
        profile: Of the model; None says that the model has none.
        pseudonyms: Replaces identifiers in every output.
        identify: Whether page and document name the patient, as the series' headers do.
        settings: Of the numbers.
        made_of: In a batch, what :func:`made_of` gives of the rest; a report that is there, and no more, is replaced.
    """

    lungs: sitk.Image | None = None
    lobes: sitk.Image | None = None
    previous: Path | Scan | None = None
    profile: Profile | None = None
    pseudonyms: Pseudonymiser | None = None
    identify: bool = False
    settings: Settings = field(default_factory=Settings)
    made_of: str = ""


def made_of(source: Path, model: ReportModel, extras: Extras) -> str:
    """Sixteen digits of what decides a report in a batch: files, model, what finds lungs, the extras of all scans."""
    return digest_of(
        {
            "files": content_of(source),
            "model": model.facts.digest,
            "lungs": automatic_method(MODELS[0], None),
            "seen": [model.orientation, *model.notes],
            "profile": extras.profile and asdict(extras.profile),
            "key": extras.pseudonyms and extras.pseudonyms.name(""),
            "identify": extras.identify,
            "settings": asdict(extras.settings),
        },
        16,
    )


def report_scan(
    scan: Scan,
    model: ReportModel,
    output: Path,
    *,
    extras: Extras | None = None,
    progress: Callable[[list[Group]], Iterable[Group]] = iter,
) -> Document:
    """Report on one scan into a new folder, which appears when it is complete.

    Args:
        scan: As ``read_scan`` gives it.
        model: Labels it.
        output: The folder; must not exist, or be a report that may be replaced.
        extras: Lung mask, lobe map, earlier report, profile, pseudonyms, settings.
        progress: Wraps the pieces that the model labels, as tqdm does.

    Raises:
        UserError: If the output exists, another process is at work on it, or one of the extras does not fit.
    """
    extras = extras or Extras()
    _require_free(output, replaces=bool(extras.made_of))
    require_fitting(scan.image, {"lung mask": extras.lungs, LOBE_MAP: extras.lobes})
    source = source_of(scan, extras.pseudonyms)
    previous = extras.previous
    if isinstance(previous, Path):
        require_same_kind(read_document(previous), extras.pseudonyms is not None)  # before the network works
    with full_disk_told(output.parent), replacing_folder(output) as folder:
        if isinstance(previous, Scan):
            own = replace(extras, previous=None, lungs=None, lobes=None)
            report_scan(previous, model, folder / EARLIER, extras=own, progress=progress)
            previous = folder / EARLIER
        document = _report_into(folder, scan, source, model, extras, previous, progress)
        _require_free(output, replaces=bool(extras.made_of))  # another process may have been at work meanwhile
        if output.exists():
            shutil.rmtree(output)
    return document


def _require_free(output: Path, *, replaces: bool) -> None:
    """Refuse a folder that exists, unless it is a report that is to be replaced: what is replaced is deleted."""
    if not output.exists():
        return
    if not replaces:
        raise UserError(f"{output} exists already; name a new folder or delete it")
    if (read_json(output / FILE) or {}).get("schema") != SCHEMA:
        raise UserError(f"{output} is there already and is no report; name another folder for the reports")
    others = {path.name for path in output.iterdir() if not is_hidden(path)} - FILES
    if others:
        raise UserError(f"{output} holds more than its report, which is out of date: {some_of(others)}; take it out")


def _report_into(
    folder: Path,
    scan: Scan,
    source: Source | None,
    model: ReportModel,
    extras: Extras,
    previous: Path | None,
    progress: Callable[[list[Group]], Iterable[Group]],
) -> Document:
    """All files of a report; an earlier scan has been reported on, into ``previous``."""
    with scan.clock.on("labels"):
        labelled = model.label(scan.image, progress, scan.clock)
    with scan.clock.on("numbers"):
        anatomy = Anatomy.of(scan.image, labelled.labels, model.classes, extras.lungs, extras.lobes)
        lungs, numbers = anatomy.lung_image, quantities_of(anatomy, extras.settings)
        document = _document(scan, source, model, labelled, numbers, extras)
    if previous is not None:
        document = replace(document, change=_change(previous, document, source))
    with scan.clock.on("pictures and files"):
        write_text(folder / PAGE, page(document.as_json(), pictures(anatomy, previous, document.model)))
        for image, name in ((labelled.labels, LABELS), (lungs, LUNGS), (preview(scan.image), PREVIEW)):
            write_volume(_without_metadata(image), folder / name)
        if source is not None:
            _write_dicom(folder / DICOM, source, document, labelled.labels, anatomy, model.classes)
    document = replace(document, seconds=scan.clock.rounded(), made_of=extras.made_of)
    document.write(folder)
    return document


def _change(previous: Path, document: Document, source: Source | None) -> dict[str, Any]:
    """The change since an earlier report, and whether it names another patient."""
    change = changes(read_document(previous), document.as_json())
    folder = previous if previous.is_dir() else previous.parent
    earlier = folder / DICOM / SEGMENTATION
    if earlier.is_file() and source is not None:
        then, now = patient_of(header_of(earlier, *PATIENT)), patient_of(source.headers[0])
        if then and now and then != now:
            change["notes"].append("The earlier report has another patient identifier: check that it is one patient.")
    return change


def source_of(scan: Scan, pseudonyms: Pseudonymiser | None) -> Source | None:
    """The headers of the scan's series, pseudonymised where asked for; None for a volume file."""
    if not scan.files:
        return None
    dicom_extra()
    with headers_told():
        source = Source.read(scan.files, scan.image)
        return source if pseudonyms is None else replace(source, headers=[pseudonyms.header(h) for h in source.headers])


def _write_dicom(
    folder: Path,
    source: Source,
    document: Document,
    labels: sitk.Image,
    anatomy: Anatomy,
    classes: Classes,
) -> None:
    values = sitk.GetArrayFromImage(labels)
    folder.mkdir()
    write_objects(
        folder,
        source,
        document.as_json(),
        {name: np.isin(values, of) for name, of in classes.items()},
        sitk.GetArrayFromImage(anatomy.lung_image) > 0,
        [axial(anatomy, index) for index in key_slices(anatomy)],
    )


def _without_metadata(image: sitk.Image) -> sitk.Image:
    """Labels, masks and voxels alone: a DICOM series' dictionary would name the patient."""
    plain = sitk.Image(image)
    for key in plain.GetMetaDataKeys():
        plain.EraseMetaData(key)
    return plain


def _document(
    scan: Scan, source: Source | None, model: ReportModel, labelled: Labelled, numbers: Quantities, extras: Extras
) -> Document:
    facts = scan.facts
    if extras.pseudonyms is not None:
        facts = extras.pseudonyms.facts(facts, source.headers[0] if source is not None else None)
    elif extras.identify and source is not None:
        known = {keyword: str(source.headers[0].get(keyword, "")) for keyword in IDENTIFIERS}
        facts = replace(facts, identifiers={keyword: value for keyword, value in known.items() if value})
    facts = replace(facts, notes=(*facts.notes, *model.notes))
    warnings = []
    if extras.profile is None:
        warnings.append("The model has no profile: how far this scan lies from its training data is not known.")
    raised = flags(numbers, labelled.observed, extras.profile)
    document = Document.of(facts, model.facts, numbers, flags=raised, warnings=tuple(warnings))
    return replace(document, created="") if facts.pseudonymous else document
