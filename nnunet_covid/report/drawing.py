"""What a report shows: key slices, the slider's slices, the coronal view, the earlier scan beside the new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.figures.scan_views import axial_picture, axial_views, coronal_view, data_uri
from nnunet_covid.report.anatomy import Anatomy
from nnunet_covid.report.change import register_lungs
from nnunet_covid.report.document import ModelFacts, read_document
from nnunet_covid.report.page import Pictures
from nnunet_covid.report.regions import as_patient

LABELS = "labels.nii.gz"
LUNGS = "lungs.nii.gz"
PREVIEW = "preview.nii.gz"
"""The scan in coarse voxels, for the picture beside a later one."""
PREVIEW_MM = 2.5
MOST_SLICES = 150
KEY_SLICES = 6
APART = "the slices may lie apart"
UNDRAWN = (
    "What was infected then is not drawn: the earlier report is by another model and does not tell its label values."
)


def key_slices(anatomy: Anatomy) -> list[int]:
    """Per sixth of the infected slices (of the lungs' without infection) the one with most infection."""
    areas = anatomy.infection.sum(axis=(1, 2))
    shown = areas if areas.any() else anatomy.lungs.sum(axis=(1, 2))
    slices = np.flatnonzero(shown) if shown.any() else np.arange(len(shown))
    groups = np.array_split(slices, min(KEY_SLICES, len(slices)))
    return [int(group[shown[group].argmax()]) for group in groups]


def axial(anatomy: Anatomy, index: int) -> NDArray[np.uint8]:
    """A slice with its overlay."""
    masks = [mask[index] for mask in anatomy.classes.values()]
    return axial_picture(anatomy.hu[index], masks, anatomy.lungs[index], anatomy.spacing[:2])


def pictures(anatomy: Anatomy, previous: Path | None, model: ModelFacts) -> Pictures:
    """All pictures of a page; the earlier scan's where ``previous`` is its report's folder."""
    a = anatomy
    comparison, caption = _beside(a, previous, model) if previous else ("", "")
    return Pictures(
        slices=axial_views(a.hu, a.classes, a.lungs, a.spacing[:2], MOST_SLICES),
        coronal=data_uri(coronal_view(a.hu, a.classes, a.parts, a.spacing)),
        key_slices={f"slice {i + 1} of {len(a.hu)}": data_uri(axial(a, i)) for i in key_slices(a)},
        comparison=comparison,
        comparison_caption=caption,
    )


def _beside(anatomy: Anatomy, previous: Path, model: ModelFacts) -> tuple[str, str]:
    """The middle one of this scan's key slices and the same place in the earlier one, and a caption."""
    folder = previous if previous.is_dir() else previous.parent
    try:
        before, labels, mask = (sitk.ReadImage(str(folder / name)) for name in (PREVIEW, LABELS, LUNGS))
    except RuntimeError:
        return "", ""
    found = register_lungs(mask, anatomy.lung_image)
    transform = found.transform if found else sitk.Transform()
    shown = key_slices(anatomy)
    index = shown[len(shown) // 2]
    grid = as_patient(anatomy.image)[:, :, index : index + 1]
    moved = [
        sitk.GetArrayFromImage(sitk.Resample(other, grid, transform, how, outside))[0]
        for other, how, outside in (
            (before, sitk.sitkLinear, -1024),
            (labels, sitk.sitkNearestNeighbor, 0),
            (mask, sitk.sitkNearestNeighbor, 0),
        )
    ]
    counted = _earlier_values(read_document(previous)["model"], model)
    masks = [np.isin(moved[1], values) for values in (counted or {}).values()]
    then = axial_picture(moved[0], masks, moved[2] > 0, anatomy.spacing[:2])
    pair = np.concatenate([then, np.zeros((len(then), 8, 3), np.uint8), axial(anatomy, index)], axis=1)
    undrawn = "" if counted is not None else f" {UNDRAWN}"
    if found is None:
        return data_uri(pair), f"Then (left) and now (right). The lungs could not be registered: {APART}.{undrawn}"
    quality = f"overlap of the registered lungs {found.dice:.2f}"
    warning = "" if found.is_good else ": poor, so the slices may show different places"
    return data_uri(pair), f"Then (left, brought to today's place) and now (right); {quality}{warning}.{undrawn}"


def _earlier_values(earlier: Mapping[str, Any], model: ModelFacts) -> dict[str, Any] | None:
    """Label values of an earlier report's classes, those of the new one first and in its order, which gives colours.

    None where they are not known: the earlier report does not tell them, and is by another model.
    """
    values = earlier.get("values") or (model.values if earlier["digest"] == model.digest else None)
    if values is None:
        return None
    return {**{name: values.get(name, ()) for name in model.values}, **values}


def preview(image: sitk.Image) -> sitk.Image:
    """The scan in voxels of at least ``PREVIEW_MM``, whole Hounsfield units."""
    size = [max(1, round(n * s / max(s, PREVIEW_MM))) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    coarse = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32), size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
        image.GetDirection(), -1024.0,
    )  # fmt: skip
    return sitk.Cast(sitk.Clamp(coarse, sitk.sitkFloat32, -1024, 3071), sitk.sitkInt16)
