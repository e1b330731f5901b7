"""Joint histogram of an 8-bit map and a reference: all that the map-based metrics need to know of a slice.

Counting 256 grey values once per quadrant and class replaces 256 binarised images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.moments import Moments, moments_of_each
from nnunet_covid.evaluation.quadrants import quadrants

GREY_VALUES = 256


@dataclass(frozen=True)
class GreyHistogram:
    """``counts[q, c, v]``: pixels of grey v in quadrant q on background (c = 0) or foreground (c = 1)."""

    counts: NDArray[np.int64]

    @cached_property
    def by_class(self) -> NDArray[np.int64]:
        """Counts of the whole slice, shape (2, 256)."""
        return self.counts.sum(axis=0)

    def grey_range(self) -> tuple[int, int]:
        """Smallest and largest grey value that occurs."""
        present = np.flatnonzero(self.by_class.any(axis=0))
        return int(present[0]), int(present[-1])

    def moments(self, *, offset: float, scale: float) -> list[tuple[Moments, Moments]]:
        """Per quadrant, the moments of (v − offset) / scale on background and on foreground."""
        rescaled = [m.rescaled(offset=offset, scale=scale) for m in self._grey_moments]
        return list(zip(rescaled[::2], rescaled[1::2], strict=True))

    @cached_property
    def _grey_moments(self) -> list[Moments]:
        """Of the grey values themselves: background and foreground of each quadrant in turn."""
        return moments_of_each(self.counts.reshape(8, GREY_VALUES))


def grey_histogram(grey: NDArray[np.uint8], reference: NDArray[np.bool_]) -> GreyHistogram:
    """Histogram of a slice, both arrays of shape (rows, columns).

    Raises:
        ValueError: if the arrays are not 2D, differ in shape or hold no pixel.
    """
    check_slice(grey, reference)
    counts = np.empty((4, 2, GREY_VALUES), dtype=np.int64)
    for (background, foreground), quadrant in zip(counts, quadrants(reference), strict=True):
        greys = grey[quadrant]
        foreground[:] = np.bincount(greys[reference[quadrant]], minlength=GREY_VALUES)
        np.subtract(np.bincount(greys.ravel(), minlength=GREY_VALUES), foreground, out=background)
    return GreyHistogram(counts)


def check_slice(map_slice: NDArray[np.generic], reference: NDArray[np.bool_]) -> None:
    """Raise ValueError unless both are 2D, of equal shape, and hold a pixel."""
    if map_slice.ndim != 2 or map_slice.shape != reference.shape or map_slice.size == 0:
        msg = f"expected two slices of one shape, got map {map_slice.shape} and reference {reference.shape}"
        raise ValueError(msg)
