"""A scan taken apart once, for its numbers and its pictures: classes, lungs, sides, lobes or zones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask import segment_lungs
from nnunet_covid.report.regions import LOBES, Mask, as_patient, lobes_of, sides, storage_order, zones_of

Classes = Mapping[str, int | tuple[int, ...]]
"""Name of each class of infection, and its value or values in a label map."""


@dataclass(frozen=True)
class Anatomy:
    """What lies where in a scan; arrays are (z, y, x) in the patient's directions.

    Attributes:
        image: Hounsfield units, as stored.
        lung_image: Lung mask on its grid.
        lungs_by: What made the lung mask.
        spacing: Millimetres along x, y, z.
        hu: The image.
        classes: Name of a class to its mask.
        infection: All classes.
        lungs: The lung mask.
        sides: Right and left lung, those that are there; empty where they cannot be told apart.
        parts: Lobes where there is a lobe map, else zones of the sides.
    """

    image: sitk.Image
    lung_image: sitk.Image
    lungs_by: str
    spacing: tuple[float, float, float]
    hu: NDArray[np.float32]
    classes: Mapping[str, Mask]
    infection: Mask
    lungs: Mask
    sides: Mapping[str, Mask]
    parts: Mapping[str, Mask]

    @classmethod
    def of(
        cls, image: sitk.Image, labels: sitk.Image, classes: Classes, lungs: sitk.Image | None, lobes: sitk.Image | None
    ) -> Anatomy:
        """Take a scan apart; without a lung mask it is that of the lobe map, or made of the image."""
        if not classes:
            raise UserError("no class of infection is named; name at least one label of the model")
        oriented = as_patient(image)
        spacing, hu = oriented.GetSpacing(), sitk.GetArrayFromImage(oriented).astype(np.float32)
        values = _array(labels)
        by_class = {name: np.isin(values, np.atleast_1d(of)) for name, of in classes.items()}
        lung_image, lungs_by = _lungs_of(image, lungs, lobes)
        mask = _array(lung_image) != 0
        if lobes is not None:
            parts = lobes_of(_array(lobes))
            by_side = {
                f"{side} lung": np.logical_or.reduce([lobe for name, lobe in parts.items() if name.startswith(side)])
                for side in ("right", "left")
            }
        else:
            by_side = {name: lung for name, lung in sides(mask, hu, spacing).items() if lung.any()}
            parts = zones_of(by_side)
        infection = np.logical_or.reduce(list(by_class.values()))
        return cls(image, lung_image, lungs_by, spacing, hu, by_class, infection, mask, by_side, parts)


def _array(labels: sitk.Image) -> NDArray[Any]:
    return sitk.GetArrayFromImage(as_patient(labels))


def _lungs_of(image: sitk.Image, given: sitk.Image | None, lobes: sitk.Image | None) -> tuple[sitk.Image, str]:
    """The lung mask on the image's grid, and what it is from: the one given, else all lobes, else the image itself."""
    if given is not None:
        return given, "given"
    oriented = as_patient(image)
    if lobes is not None:
        mask, how = np.isin(_array(lobes), list(LOBES.values())), "lobes"
    else:
        made = segment_lungs(sitk.GetArrayFromImage(oriented), is_hu=True, spacing=oriented.GetSpacing())
        mask, how = made.mask, made.method
    found = sitk.GetImageFromArray(mask.astype(np.uint8))
    found.CopyInformation(oriented)
    return sitk.DICOMOrient(found, storage_order(image)), how
