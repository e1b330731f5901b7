"""The split of an image into four quadrants at the centroid of its reference, as the S-measure needs it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Quadrant = tuple[slice, slice]


def centroid_split(reference: NDArray[np.bool_]) -> tuple[int, int]:
    """Number of rows and of columns that lie before the cut, for a reference of shape (rows, columns).

    The cut runs behind the rounded centroid: the row and column of the centroid belong to the upper left.
    Without foreground the centroid is the middle of the image. Rounding is to the even number, as in NumPy.
    """
    # Sums of bytes go through vector instructions, counts of bools along an axis do not.
    rows, columns = (np.add.reduce(reference.view(np.uint8), axis=axis, dtype=np.uint32) for axis in (1, 0))
    size = int(rows.sum())
    if size == 0:
        height, width = reference.shape
        return round(height / 2) + 1, round(width / 2) + 1
    row = int(rows @ np.arange(len(rows))) / size
    column = int(columns @ np.arange(len(columns))) / size
    return round(row) + 1, round(column) + 1


def quadrants(reference: NDArray[np.bool_]) -> tuple[Quadrant, Quadrant, Quadrant, Quadrant]:
    """Upper left, upper right, lower left and lower right; some may be empty."""
    row, column = centroid_split(reference)
    upper, lower = slice(0, row), slice(row, None)
    left, right = slice(0, column), slice(column, None)
    return (upper, left), (upper, right), (lower, left), (lower, right)
