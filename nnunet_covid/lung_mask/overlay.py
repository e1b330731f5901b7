"""Masks drawn as outlines over grey slices, and several such slices on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Colour = tuple[int, int, int]

GREEN: Colour = (0, 200, 80)
RED: Colour = (240, 50, 40)
BLUE: Colour = (60, 140, 255)


def outlined(image: NDArray[Any], masks: Mapping[Colour, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """A grey slice with the outline of each mask in its colour.

    Args:
        image: Shape (y, x), any scale; stretched from its darkest to its brightest value.
        masks: Colour to mask of the same shape; later ones are drawn over earlier ones.

    Returns:
        RGB picture, shape (y, x, 3).
    """
    low, high = float(image.min()), float(image.max())
    grey = (image.astype(np.float32) - low) / max(high - low, 1e-6) * 255
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    for colour, mask in masks.items():
        picture[mask & ~ndimage.binary_erosion(mask)] = colour
    return picture


def sheet(tiles: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """RGB tiles of any sizes side by side, row by row, on black.

    Args:
        tiles: Pictures of shape (y, x, 3).
        columns: Tiles in a row.
    """
    height = max(tile.shape[0] for tile in tiles)
    width = max(tile.shape[1] for tile in tiles)
    rows = -(-len(tiles) // columns)
    result = np.zeros((rows * height, min(columns, len(tiles)) * width, 3), dtype=np.uint8)
    for index, tile in enumerate(tiles):
        y, x = index // columns * height, index % columns * width
        result[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return result
