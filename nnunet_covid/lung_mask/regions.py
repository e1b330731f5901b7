"""Connected regions of a slice: the largest one, those at its corners, and its edge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label


def largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected region of a mask (y, x); nothing where the mask is empty."""
    regions = label(mask, connectivity=1)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return regions == sizes.argmax() if sizes.any() else np.zeros(mask.shape, dtype=bool)


def edge_of(picture: NDArray[Any]) -> NDArray[Any]:
    """The values along the four sides of a picture (y, x)."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def regions_outside(mask: NDArray[np.bool_], *, whole_edge: bool = False) -> NDArray[np.bool_]:
    """The connected regions of a mask (y, x) that hold a corner of the picture, or touch its edge anywhere."""
    regions = label(mask, connectivity=1)
    touching = edge_of(regions) if whole_edge else regions[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.isin(regions, touching[touching > 0])
