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
BLOCK_PIXELS = 1 << 16  # widened to 64 bits, a block of this size stays below half a megabyte


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
    # Bit 8 carries the class, so that one count serves both.
    joint = reference.astype(np.uint16)
    joint <<= 8
    joint |= grey
    counts = [_counts(joint[quadrant]) for quadrant in quadrants(reference)]
    return GreyHistogram(np.stack(counts).reshape(4, 2, GREY_VALUES))


def _counts(joint: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How often each value below 512 occurs, counted in blocks: NumPy widens to 64 bits what it counts."""
    counts = np.zeros(2 * GREY_VALUES, dtype=np.int64)
    rows = max(1, BLOCK_PIXELS // max(1, joint.shape[1]))
    for start in range(0, len(joint), rows):
        counts += np.bincount(joint[start : start + rows].ravel(), minlength=2 * GREY_VALUES)
    return counts


def check_slice(map_slice: NDArray[np.generic], reference: NDArray[np.bool_]) -> None:
    """Raise ValueError unless both are 2D, of equal shape, and hold a pixel."""
    if map_slice.ndim != 2 or map_slice.shape != reference.shape or map_slice.size == 0:
        msg = f"expected two slices of one shape, got map {map_slice.shape} and reference {reference.shape}"
        raise ValueError(msg)
