"""Masks that lie where no lesion can be, or would fit better mirrored."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.measure import label as connected

from nnunet_covid.raw_dataset import Scan

ON_AIR = 0.5
"""A mask with more than this share of its voxels on air is reported."""

AIR_HU = -950.0
"""Normal lung lies near -850 HU, air near -1000."""


def share_on_air(scan: Scan, mask: NDArray[np.bool_]) -> float:
    """Share of the mask that lies on air: below ``AIR_HU``, or, in grey values, dark and joined to the edge."""
    if not mask.any():
        return 0.0
    if scan.is_hu:
        return float((scan.image[mask] < AIR_HU).mean())
    slices = [(scan.image, mask)] if mask.ndim == 2 else list(zip(scan.image, mask, strict=True))
    on_air = sum(int((_air_around(image) & part).sum()) for image, part in slices if part.any())
    return on_air / int(mask.sum())


def _air_around(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Dark regions that hold a corner of the picture."""
    if image.min() == image.max():
        return np.zeros(image.shape, dtype=bool)
    regions = connected(image < threshold_otsu(image), connectivity=1)
    corners = regions[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.isin(regions, corners[corners > 0])


def spread_by_mirroring(image: NDArray[Any], mask: NDArray[np.bool_]) -> dict[tuple[int, ...], float]:
    """Standard deviation of the intensities inside the mask, as stored and with its axes mirrored.

    A lesion is more uniform than what a misplaced mask cuts out, which crosses pleura, vessels and bone.

    Returns:
        Mirrored array axes (``()`` for the mask as stored) to the standard deviation relative to the image's.
    """
    values = np.clip(image.astype(np.float32), -1250, 250) if image.min() < -200 else image.astype(np.float32)
    overall = float(values.std()) or 1.0
    axes = range(mask.ndim)
    mirrorings = [
        tuple(a for a, flip in zip(axes, flips, strict=True) if flip) for flips in product((0, 1), repeat=mask.ndim)
    ]
    return {mirrored: float(values[np.flip(mask, mirrored)].std()) / overall for mirrored in mirrorings}


def likely_mirroring(spreads: list[dict[tuple[int, ...], float]]) -> tuple[int, ...] | None:
    """The mirroring under which the masks of a data set fit their images clearly better; ``None`` if as stored."""
    if not spreads:
        return None
    mean = {mirrored: float(np.mean([spread[mirrored] for spread in spreads])) for mirrored in spreads[0]}
    best = min(mean, key=lambda mirrored: mean[mirrored])
    wins = sum(spread[best] < spread[()] for spread in spreads)
    clearly = mean[best] < CLEARLY_BETTER * mean[()] and wins > len(spreads) / 2
    return best if best != () and clearly else None


CLEARLY_BETTER = 0.8
"""Ratio of mean spreads; right masks of the three data sets at hand have at most 0.8 of their best mirror image's."""
