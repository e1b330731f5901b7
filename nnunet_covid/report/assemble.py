"""One report: label the scan, measure it, compare it with an earlier one, draw it, write its folder.

The order of things and the files' names stand here; each piece has its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.figures.scan_views import axial_picture, axial_views, coronal_view, data_uri
from nnunet_covid.files import replacing_folder, write_text
from nnunet_covid.lung_mask import segment_lungs
from nnunet_covid.report.change import changes, register_lungs
from nnunet_covid.report.confidence import Profile, flags
from nnunet_covid.report.document import Document, read_document
from nnunet_covid.report.model import Labelled, ReportModel
from nnunet_covid.report.page import Pictures, page
from nnunet_covid.report.quantify import Quantities, Settings, quantify
from nnunet_covid.report.regions import LOBES, Mask, as_patient, lobes_of, sides, zones_of
from nnunet_covid.report.scans import Scan

PAGE = "report.html"
LABELS = "labels.nii.gz"
LUNGS = "lungs.nii.gz"
PREVIEW = "preview.nii.gz"
"""The scan in coarse voxels, for the picture beside a later one."""
PREVIEW_MM = 2.5
MOST_SLICES = 150
KEY_SLICES = 6


@dataclass(frozen=True)
class Extras:
    """What a report may be given beside the scan.

    Attributes:
        lungs: Lung mask on the scan's grid.
        lobes: Lobe map on the scan's grid.
        previous: Folder of an earlier report of the same patient.
        profile: Of the model; None says that the model has none.
    """

    lungs: sitk.Image | None = None
    lobes: sitk.Image | None = None
    previous: Path | None = None
    profile: Profile | None = None


def report(
    scan: Scan, model: ReportModel, output: Path, *, extras: Extras | None = None, settings: Settings | None = None
) -> Document:
    """Report on one scan into a new folder, which appears when it is complete.

    Args:
        scan: As ``read_scan`` gives it.
        model: Labels it.
        output: The folder; must not exist.
        extras: Lung mask, lobe map, earlier report, profile.
        settings: Of the numbers.

    Raises:
        UserError: If the output exists or one of the extras does not fit.
    """
    extras = extras or Extras()
    if output.exists():
        raise UserError(f"{output} exists already; name a new folder or delete it")
    earlier = read_document(extras.previous) if extras.previous else None
    labelled = model.label(scan.image)
    lungs = extras.lungs or lungs_of(scan.image, extras.lobes)
    numbers = quantify(
        scan.image, labelled.labels, model.classes, lungs=lungs, lobes=extras.lobes, settings=settings
    )
    if extras.lungs is None and extras.lobes is None:
        numbers = replace(numbers, lungs_by=lungs.GetMetaData("made by"))
    document = _document(scan, model, labelled, numbers, extras)
    if earlier is not None:
        document = replace(document, change=changes(earlier, document.as_json()))
    drawn = _Drawn.of(scan.image, labelled.labels, lungs, extras.lobes, model.classes)
    pictures = _pictures(drawn, scan.image, lungs, extras.previous, model.classes)
    with replacing_folder(output) as folder:
        document.write(folder)
        write_text(folder / PAGE, page(document.as_json(), pictures))
        sitk.WriteImage(labelled.labels, str(folder / LABELS), useCompression=True)
        sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), str(folder / LUNGS), useCompression=True)
        sitk.WriteImage(_preview(scan.image), str(folder / PREVIEW), useCompression=True)
    return document


def lungs_of(image: sitk.Image, lobes: sitk.Image | None) -> sitk.Image:
    """The lung mask on the image's grid, from the lobes where there are, else segmented; ``made by`` says how."""
    oriented = as_patient(image)
    if lobes is not None:
        mask, how = np.isin(sitk.GetArrayFromImage(as_patient(lobes)), list(LOBES.values())), "lobes"
    else:
        made = segment_lungs(sitk.GetArrayFromImage(oriented), is_hu=True, spacing=oriented.GetSpacing())
        mask, how = made.mask, made.method
    found = sitk.GetImageFromArray(mask.astype(np.uint8))
    found.CopyInformation(oriented)
    found = sitk.DICOMOrient(found, orientation_of(image))
    found.SetMetaData("made by", how)
    return found


def orientation_of(image: sitk.Image) -> str:
    """Storage order of an image, three letters as in DICOM."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def _document(
    scan: Scan, model: ReportModel, labelled: Labelled, numbers: Quantities, extras: Extras
) -> Document:
    facts = replace(scan.facts, notes=(*scan.facts.notes, *labelled.notes))
    warnings = [] if extras.profile else ["The model has no profile: how far this scan lies from its training data is not known."]
    if "lungs" in numbers.missing:
        warnings.append("No lungs were found: shares, zones and severity are not available.")
    raised = flags(numbers, labelled, scan.image, extras.profile)
    return Document.of(facts, model.facts(), numbers, flags=raised, warnings=tuple(warnings))


@dataclass(frozen=True)
class _Drawn:
    """What the pictures show, in the patient's directions (z, y, x)."""

    hu: NDArray[np.float32]
    classes: Mapping[str, Mask]
    lungs: Mask
    parts: Mapping[str, Mask]
    spacing: tuple[float, float, float]

    @classmethod
    def of(
        cls, image: sitk.Image, labels: sitk.Image, lungs: sitk.Image, lobes: sitk.Image | None, classes: Mapping[str, Any]
    ) -> _Drawn:
        oriented = as_patient(image)
        x, y, z = oriented.GetSpacing()
        hu = sitk.GetArrayFromImage(oriented).astype(np.float32)
        values = sitk.GetArrayFromImage(as_patient(labels))
        mask = sitk.GetArrayFromImage(as_patient(lungs)) > 0
        if lobes is not None:
            parts = lobes_of(sitk.GetArrayFromImage(as_patient(lobes)))
        else:
            parts = zones_of(sides(mask, hu, (x, y, z)))
        return cls(hu, {name: np.isin(values, of) for name, of in classes.items()}, mask, parts, (x, y, z))

    def key_slices(self) -> list[int]:
        """Per sixth of the infected slices (of the lungs' without infection) the one with most infection."""
        areas = np.logical_or.reduce(list(self.classes.values())).sum(axis=(1, 2))
        shown = areas if areas.any() else self.lungs.sum(axis=(1, 2))
        slices = np.flatnonzero(shown) if shown.any() else np.arange(len(shown))
        groups = np.array_split(slices, min(KEY_SLICES, len(slices)))
        return [int(group[shown[group].argmax()]) for group in groups]

    def axial(self, index: int) -> NDArray[np.uint8]:
        """A slice with its overlay."""
        return axial_picture(self.hu[index], [mask[index] for mask in self.classes.values()], self.lungs[index])


def _pictures(
    drawn: _Drawn, image: sitk.Image, lungs: sitk.Image, previous: Path | None, classes: Mapping[str, Any]
) -> Pictures:
    comparison, caption = "", ""
    if previous is not None:
        comparison, caption = _beside(drawn, image, lungs, previous, classes)
    return Pictures(
        slices=axial_views(drawn.hu, drawn.classes, drawn.lungs, drawn.spacing[:2], MOST_SLICES),
        coronal=data_uri(coronal_view(drawn.hu, drawn.classes, drawn.parts, drawn.spacing)),
        key_slices={f"slice {index + 1} of {len(drawn.hu)}": data_uri(drawn.axial(index)) for index in drawn.key_slices()},
        comparison=comparison,
        comparison_caption=caption,
    )


def _beside(
    drawn: _Drawn, image: sitk.Image, lungs: sitk.Image, previous: Path, classes: Mapping[str, Any]
) -> tuple[str, str]:
    """The slice with most infection of this scan and the same place in the earlier one, and a caption."""
    folder = previous if previous.is_dir() else previous.parent
    try:
        before, labels, mask = (sitk.ReadImage(str(folder / name)) for name in (PREVIEW, LABELS, LUNGS))
    except RuntimeError:
        return "", ""
    found = register_lungs(mask, lungs)
    transform = found.transform if found else sitk.Transform()
    grid = as_patient(image)
    moved = [
        sitk.GetArrayFromImage(sitk.Resample(other, grid, transform, how, outside))
        for other, how, outside in (
            (before, sitk.sitkLinear, -1024),
            (labels, sitk.sitkNearestNeighbor, 0),
            (mask, sitk.sitkNearestNeighbor, 0),
        )
    ]
    index = drawn.key_slices()[len(drawn.key_slices()) // 2]
    masks = [np.isin(moved[1][index], values) for values in classes.values()]
    then = axial_picture(moved[0][index], masks, moved[2][index] > 0)
    pair = np.concatenate([then, np.full((len(then), 8, 3), 255, np.uint8), drawn.axial(index)], axis=1)
    if found is None:
        return data_uri(pair), "Then (left) and now (right). The lungs could not be registered: the slices may lie apart."
    quality = f"overlap of the registered lungs {found.dice:.2f}"
    warning = "" if found.is_good else ": poor, so the slices may show different places"
    return data_uri(pair), f"Then (left, brought to today's place) and now (right); {quality}{warning}."


def _preview(image: sitk.Image) -> sitk.Image:
    """The scan in voxels of at least ``PREVIEW_MM``, whole Hounsfield units."""
    size = [max(1, round(n * s / max(s, PREVIEW_MM))) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    coarse = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32), size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
        image.GetDirection(), -1024.0,
    )  # fmt: skip
    return sitk.Cast(sitk.Clamp(coarse, sitk.sitkFloat32, -1024, 3071), sitk.sitkInt16)
