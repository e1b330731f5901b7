"""What a report shows: key slices, the slider's slices, the coronal view, the earlier scan beside the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.figures.scan_views import axial_picture, axial_views, coronal_view, data_uri
from nnunet_covid.report.change import register_lungs
from nnunet_covid.report.page import Pictures
from nnunet_covid.report.regions import Mask, as_patient, lobes_of, sides, zones_of

LABELS = "labels.nii.gz"
LUNGS = "lungs.nii.gz"
PREVIEW = "preview.nii.gz"
"""The scan in coarse voxels, for the picture beside a later one."""
PREVIEW_MM = 2.5
MOST_SLICES = 150
KEY_SLICES = 6


@dataclass(frozen=True)
class Drawn:
    """What the pictures show, in the patient's directions (z, y, x)."""

    hu: NDArray[np.float32]
    classes: Mapping[str, Mask]
    lungs: Mask
    parts: Mapping[str, Mask]
    spacing: tuple[float, float, float]

    @classmethod
    def of(
        cls,
        image: sitk.Image,
        labels: sitk.Image,
        lungs: sitk.Image,
        lobes: sitk.Image | None,
        classes: Mapping[str, Any],
    ) -> Drawn:
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

    def pictures(
        self, image: sitk.Image, lungs: sitk.Image, previous: Path | None, classes: Mapping[str, Any]
    ) -> Pictures:
        """All pictures of a page; the earlier scan's where ``previous`` is its report's folder."""
        comparison, caption = _beside(self, image, lungs, previous, classes) if previous else ("", "")
        return Pictures(
            slices=axial_views(self.hu, self.classes, self.lungs, self.spacing[:2], MOST_SLICES),
            coronal=data_uri(coronal_view(self.hu, self.classes, self.parts, self.spacing)),
            key_slices={f"slice {i + 1} of {len(self.hu)}": data_uri(self.axial(i)) for i in self.key_slices()},
            comparison=comparison,
            comparison_caption=caption,
        )


def _beside(
    drawn: Drawn, image: sitk.Image, lungs: sitk.Image, previous: Path, classes: Mapping[str, Any]
) -> tuple[str, str]:
    """The slice with most infection of this scan and the same place in the earlier one, and a caption."""
    folder = previous if previous.is_dir() else previous.parent
    try:
        before, labels, mask = (sitk.ReadImage(str(folder / name)) for name in (PREVIEW, LABELS, LUNGS))
    except RuntimeError:
        return "", ""
    found = register_lungs(mask, lungs)
    transform = found.transform if found else sitk.Transform()
    index = drawn.key_slices()[len(drawn.key_slices()) // 2]
    grid = as_patient(image)[:, :, index : index + 1]
    moved = [
        sitk.GetArrayFromImage(sitk.Resample(other, grid, transform, how, outside))[0]
        for other, how, outside in (
            (before, sitk.sitkLinear, -1024),
            (labels, sitk.sitkNearestNeighbor, 0),
            (mask, sitk.sitkNearestNeighbor, 0),
        )
    ]
    masks = [np.isin(moved[1], values) for values in classes.values()]
    then = axial_picture(moved[0], masks, moved[2] > 0)
    pair = np.concatenate([then, np.zeros((len(then), 8, 3), np.uint8), drawn.axial(index)], axis=1)
    if found is None:
        return data_uri(
            pair
        ), "Then (left) and now (right). The lungs could not be registered: the slices may lie apart."
    quality = f"overlap of the registered lungs {found.dice:.2f}"
    warning = "" if found.is_good else ": poor, so the slices may show different places"
    return data_uri(pair), f"Then (left, brought to today's place) and now (right); {quality}{warning}."


def preview(image: sitk.Image) -> sitk.Image:
    """The scan in voxels of at least ``PREVIEW_MM``, whole Hounsfield units."""
    size = [max(1, round(n * s / max(s, PREVIEW_MM))) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    coarse = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32), size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
        image.GetDirection(), -1024.0,
    )  # fmt: skip
    return sitk.Cast(sitk.Clamp(coarse, sitk.sitkFloat32, -1024, 3071), sitk.sitkInt16)
