"""In which unit an image is stored: Hounsfield units, a grey scale, or one on which air is bright.

Decided for each image by its own values, and compared over a data set: what one file holds says nothing of the next.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from nnunet_covid.files import some_of
from nnunet_covid.lung_mask.regions import edge_of, largest_region

AIR_BELOW = -200
"""A grey scale never goes below zero; Hounsfield units do so wherever there is fat or air."""

BODY = 0.35
"""Share of a slice that a whole body fills at least."""
LUNGS = 0.03
"""Share of the body that each lung fills at least."""


class GreyScale(enum.Enum):
    """What the values of an image are; the values of the members stand in ``conversion.json``."""

    HOUNSFIELD = "Hounsfield units"
    GREY = "grey values"
    INVERTED = "inverted grey values"


def is_hounsfield(image: NDArray[Any]) -> bool:
    """Whether values below ``AIR_BELOW`` occur."""
    return bool(image.min() < AIR_BELOW)


def span_of(image: NDArray[Any]) -> str:
    """The values of an image in words, for a message."""
    unit = "" if is_hounsfield(image) else ", no Hounsfield units"
    return f"values from {image.min():g} to {image.max():g}{unit}"


def is_inverted(image: NDArray[Any]) -> bool:
    """Whether an axial slice shows a whole body on a scale on which air is bright.

    Then most of the picture's edge is bright, and one dark region, the body, encloses two bright
    ones beside its middle, the lungs. A slice cut to the lungs has no air around it: of such a one nothing is said.

    Args:
        image: Shape (y, x), grey values; or (z, y, x) with axial slices, of which the middle one is looked at.
    """
    axial = np.asarray(image[len(image) // 2] if image.ndim == 3 else image, dtype=np.float32)
    if axial.min() == axial.max():
        return False
    below = axial < threshold_otsu(axial)
    if edge_of(below).mean() > 0.5:
        return False
    body = largest_region(below)
    filled = ndimage.binary_fill_holes(body)
    if filled.sum() < BODY * axial.size:
        return False
    middle = ndimage.center_of_mass(filled)[1]
    lungs = [r for r in regionprops(label(filled & ~body)) if r.area >= LUNGS * filled.sum()]
    return any(r.centroid[1] < middle for r in lungs) and any(r.centroid[1] > middle for r in lungs)


def grey_scale_of(image: NDArray[Any], *, is_hu: bool) -> GreyScale:
    """Of one image.

    Args:
        image: Shape (y, x), or (z, y, x) with axial slices.
        is_hu: Whether Hounsfield units are expected; an image without air is in grey values all the same.
    """
    if is_hu and is_hounsfield(image):
        return GreyScale.HOUNSFIELD
    return GreyScale.INVERTED if not is_hu and is_inverted(image) else GreyScale.GREY


def odd_ones(scales: Mapping[str, GreyScale]) -> tuple[list[str], str] | None:
    """The images that hold other values than most, and the same in words with the remedy; ``None`` if all are alike.

    Args:
        scales: Of each image by its name.
    """
    groups = {scale: [name for name in scales if scales[name] is scale] for scale in GreyScale}
    present = sorted((scale for scale in groups if groups[scale]), key=lambda scale: -len(groups[scale]))
    if len(present) < 2:
        return None
    usual, *odd = present
    told = " and ".join(f"{scale.value} in {some_of(groups[scale])}" for scale in odd)
    remedy = "bring all to one scale, or convert them as two data sets"
    return [name for scale in odd for name in groups[scale]], f"{told}, but {usual.value} in the other images; {remedy}"
