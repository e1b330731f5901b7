"""Lungs by threshold and shape: in a CT volume in Hounsfield units, and in a slice of any grey scale.

A volume: a fixed threshold, then the air spaces inside the body with a lung's size and density. The threshold
separates aerated lung from soft tissue, so consolidated lung is lost except where closing wins it back.

A slice: Otsu's threshold, then shape, on whole-body slices and on slices cut to the lung box. It knows neither
neighbouring slices nor absolute intensities, so gas in the bowel may be taken for lung and dense lesions at the pleura
are only won back as far as closing reaches. How much is lost is measured in ``docs/explanation/lung-masks.md``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_closing

from nnunet_covid.lung_mask.regions import edge_of, largest_region, regions_outside

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

SMOOTHING = 0.004
"""Standard deviation of the Gaussian in front of the threshold, relative to the picture's mean side length."""

CLOSING = 0.045
"""Radius of the closing that takes in vessels and lesions at the pleura, relative to the mean side length."""

SMALLEST_LUNG = 0.004
"""Smaller dark regions are airways, bowel gas or noise; share of the picture's area."""

AIRWAY_AREA = 0.25
"""An airway is smaller than this share of the largest region …"""

AIRWAY_QUANTILE = 0.2
"""… and on average darker than this quantile of its values."""


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
    body = ndimage.binary_fill_holes(largest_region(axial >= LUNG_BELOW))
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


def lungs_in_slice(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Lung mask of one slice.

    In a whole-body slice everything dark that touches the edge is outside. In a slice cut to the lung box the lungs
    themselves may touch it; there only regions that hold a corner of the picture are outside.

    Args:
        image: Shape (y, x), any monotone grey scale on which air is dark.

    Returns:
        Boolean mask, same shape; empty where nothing looks like lung.
    """
    side = float(np.mean(image.shape))
    smooth = ndimage.gaussian_filter(image.astype(np.float32), SMOOTHING * side)
    if np.ptp(smooth) == 0:
        return np.zeros(image.shape, dtype=bool)
    dark = smooth < threshold_otsu(smooth)
    whole_body = bool(edge_of(dark).mean() > 0.5)  # air covers most of the picture's edge
    candidates = dark & ~regions_outside(dark, whole_edge=whole_body)
    if whole_body:  # not the inside of the couch, which is as dark as lung
        candidates &= ndimage.binary_fill_holes(largest_region(~dark))
    candidates = _without_small(ndimage.binary_fill_holes(candidates), SMALLEST_LUNG * image.size)
    candidates = _without_airways(candidates, smooth)
    return close_regions(candidates, CLOSING * side)


def _without_airways(mask: NDArray[np.bool_], smooth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Drop small regions that are clearly darker than the largest: trachea and main bronchi hold nothing but air."""
    regions = label(mask, connectivity=1)
    measured = regionprops(regions, intensity_image=smooth)
    if len(measured) < 2:
        return mask
    largest = max(measured, key=lambda region: region.area)
    values = smooth[regions == largest.label]
    darker = float(np.quantile(values, AIRWAY_QUANTILE))
    kept = [r.label for r in measured if r.area >= AIRWAY_AREA * largest.area or r.intensity_mean > darker]
    return np.isin(regions, kept)


def _without_small(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    regions = label(mask, connectivity=1)
    kept = [region.label for region in regionprops(regions) if region.area >= smallest]
    return np.isin(regions, kept)


def close_regions(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Close each connected region of a slice with a disc and fill its holes.

    Closing region by region keeps the two lungs apart where they nearly touch. What touches the edge of the
    picture is not eroded there.

    Args:
        mask: Shape (y, x).
        radius: Pixels.
    """
    margin = math.ceil(radius) + 1
    closed = np.zeros_like(mask)
    regions = label(mask, connectivity=1)
    for index, box in enumerate(ndimage.find_objects(regions), start=1):
        region = isotropic_closing(np.pad(regions[box] == index, margin), radius)
        closed[box] |= region[margin:-margin, margin:-margin]
    return ndimage.binary_fill_holes(closed)
