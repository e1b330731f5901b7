"""Lungs in a CT volume in Hounsfield units: a fixed threshold, the two largest air spaces inside the body.

The threshold separates aerated lung from soft tissue, so consolidated lung is lost except where closing wins
it back; how much is measured in ``docs/explanation/lung-masks.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from nnunet_covid.lung_mask.closing import close_regions

LUNG_BELOW = -400.0
"""HU; between aerated lung (about -850) and soft tissue (about 40), ground glass included."""

AIRWAY_BELOW = -950.0
"""HU; typical values are lower only inside trachea, main bronchi and bowel gas, which hold nothing but air."""

LARGEST_AIRWAY_CM2 = 15.0
"""Area of the trachea or of both main bronchi in one slice at most."""

SMALLEST_LUNG_ML = 100.0
"""Smaller air spaces are airways or bowel gas."""

CLOSING_MM = 10.0
"""In-plane radius of the closing that takes in vessels and lesions at the pleura."""


def lungs_in_volume(image: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Lung mask of a volume.

    Args:
        image: Shape (z, y, x), Hounsfield units, axial slices.
        spacing: Millimetres along x, y and z.

    Returns:
        Boolean mask, same shape; empty where nothing looks like lung.
    """
    pixel_cm2 = spacing[0] * spacing[1] / 100
    air = np.stack([_air_inside_body(axial, pixel_cm2) for axial in image])
    lungs = _lung_sized(air, image, spacing)
    return np.stack([close_regions(axial, CLOSING_MM / spacing[0]) for axial in lungs])


def _air_inside_body(axial: NDArray[Any], pixel_cm2: float) -> NDArray[np.bool_]:
    """Aerated regions of one slice that the body encloses, without the airways."""
    dense = label(axial >= LUNG_BELOW, connectivity=1)
    sizes = np.bincount(dense.ravel())
    sizes[0] = 0
    body = ndimage.binary_fill_holes(dense == sizes.argmax()) if sizes.any() else np.zeros(axial.shape, dtype=bool)
    regions = label(body & (axial < LUNG_BELOW), connectivity=1)
    areas = np.bincount(regions.ravel()) * pixel_cm2
    medians = np.asarray(ndimage.median(axial, regions, index=np.arange(len(areas))))
    kept = (areas > LARGEST_AIRWAY_CM2) | (medians > AIRWAY_BELOW)
    kept[0] = False
    return kept[regions]


def _lung_sized(air: NDArray[np.bool_], image: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Air spaces with a lung's volume and a lung's density."""
    regions = label(air, connectivity=1)
    volumes = np.bincount(regions.ravel()) * (float(np.prod(spacing)) / 1000)
    means = np.asarray(ndimage.mean(image, regions, index=np.arange(len(volumes))))
    is_lung = (volumes >= SMALLEST_LUNG_ML) & (means > AIRWAY_BELOW)
    is_lung[0] = False
    return is_lung[regions]
