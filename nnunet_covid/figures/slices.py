"""Slices as pictures: grey values, and masks and maps laid over them. Arrays in, arrays out; no file is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Colour = tuple[int, int, int]

GREEN: Colour = (0, 200, 80)
RED: Colour = (240, 50, 40)
BLUE: Colour = (60, 140, 255)
WHITE: Colour = (255, 255, 255)
HEAT_COLOURS = "turbo"
HEAT_OPACITY = 0.55
LUNG_WINDOW = (-1250.0, 250.0)
"""Hounsfield units shown from black to white (SSA-Net, §4.2)."""
CONTRAST = (0.5, 99.5)
"""Percentiles that become black and white where values are no Hounsfield units."""


def grey_slice(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A slice for display: Hounsfield units in the lung window, anything else between its outer half per cents."""
    return grey_levels(image, *(LUNG_WINDOW if image.min() < -200 else np.percentile(image, CONTRAST)))


def as_rgb(grey: NDArray[Any]) -> NDArray[Any]:
    """Grey values (y, x) as a picture (y, x, 3)."""
    return np.repeat(grey[..., None], 3, axis=-1)


def outlined(image: NDArray[Any], masks: Mapping[Colour, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """An image with the outline of each mask in its colour.

    Args:
        image: A slice (y, x) of any scale, stretched from its darkest to its brightest value, or a picture (y, x, 3).
        masks: Colour to mask (y, x); later ones are drawn over earlier ones.

    Returns:
        RGB picture, shape (y, x, 3).
    """
    flat = image.ndim == 2
    picture = as_rgb(grey_levels(image, float(image.min()), float(image.max()))) if flat else image.copy()
    for colour, mask in masks.items():
        picture[mask & ~ndimage.binary_erosion(mask)] = colour
    return picture


def blended(
    picture: NDArray[Any], colour: ArrayLike, opacity: float, mask: NDArray[np.bool_] | None = None
) -> NDArray[Any]:
    """A picture (y, x, 3) with colour laid over it.

    Args:
        picture: Integers from 0 to 255, or floats.
        colour: One for all pixels (3,) or one for each (y, x, 3), in the picture's scale.
        opacity: 0 leaves the picture, 1 the colour.
        mask: Where (y, x); everywhere if not given.
    """
    mixed = (1 - opacity) * picture + opacity * np.asarray(colour)
    if mask is not None:
        mixed = np.where(mask[..., None], mixed, picture)
    return mixed.round().astype(np.uint8) if picture.dtype == np.uint8 else mixed


def heat_over(grey: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map of values 0 to 1 in colour over a grey slice, (y, x) to (y, x, 3)."""
    from matplotlib import colormaps  # not needed by those who want the window alone

    return blended(as_rgb(grey), colormaps[HEAT_COLOURS](heat)[..., :3] * 255, HEAT_OPACITY)


def scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """To 0 … 1 from the smallest value to the 99.9th per cent; all zero where the map is constant."""
    low, high = float(heat.min()), float(np.percentile(heat, 99.9))
    if high <= low:
        high = float(heat.max())
    return np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)


def shown_slice(labels: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[int, int]:
    """Axis and index of the slice that a picture shows: the one with most predicted foreground.

    The axis is the one with the largest spacing (the first among equals). Without any foreground it is the middle.

    Args:
        labels: (classes, *image axes), three axes.
        spacing: Of the image axes.
    """
    axis = int(np.argmax(np.asarray(spacing) / max(spacing)))
    others = tuple(a for a in range(labels.ndim - 1) if a != axis)
    areas = labels.any(axis=0).sum(axis=others)
    return axis, int(areas.argmax()) if areas.any() else len(areas) // 2


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


def grey_levels(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values from ``low`` to ``high`` as black to white."""
    share = (image.astype(np.float32) - low) / max(high - low, 1e-6)
    return (np.clip(share, 0, 1) * 255).astype(np.uint8)
