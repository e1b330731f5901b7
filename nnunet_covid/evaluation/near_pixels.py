"""Exact distances up to eight pixels in 2D, for many pixels at once.

Borders of two segmentations mostly run within a few pixels of each other. Around such a pixel, fifteen rows of sixteen
bits hold all targets that may be nearest, and a table tells the nearest bit of a row: a third of the time of a search
tree. Pixels farther away are left to the tree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REACH = 7  # rows above and below, and whole columns on either side, that are looked at
WINDOW = 16  # bits of a row: columns −8 to +7 around the pixel
CENTRE = 8
NOTHING = 255


def near_distances(
    pixels: NDArray[np.intp], target: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Distance from each pixel to the nearest target, and where it is sure to be the nearest.

    Args:
        pixels: flat indices into the image.
        target: mask of shape (rows, columns).
        spacing: edge lengths of a pixel, rows and columns.

    Returns:
        Two arrays of the shape of ``pixels``. Where the second is False, no target lies within reach or a nearer one
        may lie beyond it; the first then says nothing.
    """
    words, row_bytes = _packed_words(target)
    row = pixels // target.shape[1]
    column = pixels - row * target.shape[1]
    # One line per row offset: reductions over the first axis run along memory.
    first = row * row_bytes + (column >> 3)
    bits = words[first + row_bytes * np.arange(2 * REACH + 1)[:, None]]
    bits >>= (column & 7).astype(np.uint32)
    bits &= (1 << WINDOW) - 1
    height, width = (float(s) for s in spacing)
    squares = np.full(NOTHING + 1, np.inf)
    squares[: CENTRE + 1] = (width * np.arange(CENTRE + 1)) ** 2
    across = squares.take(NEAREST_BIT.take(bits.astype(np.intp)))  # take is twice as fast as indexing here
    across += ((height * np.arange(-REACH, REACH + 1)) ** 2)[:, None]
    distances = np.sqrt(across.min(axis=0))
    return distances, distances <= (REACH + 1) * min(height, width)


def _packed_words(target: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
    """For each byte of the packed image the 24 bits that begin with it, and the number of bytes of a row.

    The image has a margin: bit 0 of the word of row i and byte 0 is the pixel (i − REACH, −CENTRE).
    """
    rows, columns = target.shape
    row_bytes = -(-(columns + 2 * CENTRE) // 8)
    framed = np.zeros((rows + 2 * REACH, 8 * row_bytes), dtype=np.bool_)
    framed[REACH : REACH + rows, CENTRE : CENTRE + columns] = target
    packed = np.zeros(framed.shape[0] * row_bytes + 2, dtype=np.uint32)
    packed[:-2] = np.packbits(framed, bitorder="little")
    return packed[:-2] | packed[1:-1] << 8 | packed[2:] << 16, row_bytes


def _nearest_bit() -> NDArray[np.uint8]:
    """How far the nearest set bit lies from the centre, for each window."""
    table = np.full(1 << WINDOW, NOTHING, dtype=np.uint8)
    windows = np.arange(1 << WINDOW)
    for bit in sorted(range(WINDOW), key=lambda b: -abs(b - CENTRE)):
        table[windows >> bit & 1 == 1] = abs(bit - CENTRE)
    return table


NEAREST_BIT = _nearest_bit()
