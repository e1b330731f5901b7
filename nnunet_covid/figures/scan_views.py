"""Views of a volume for a page: axial slices with their overlays apart, and one coronal view. Arrays in, text out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nnunet_covid.figures.slices import LUNG_WINDOW, as_rgb, blended, grey_levels, outlined
from nnunet_covid.figures.style import class_colour
from nnunet_covid.files import evenly_spread

LARGEST_SIDE = 512
OVERLAY_OPACITY = 140  # of 255
QUALITY = 80
LUNG_OUTLINE = (120, 190, 255)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SliceView:
    """One slice: its picture, and the overlay that a page lays over it; both as data URIs."""

    index: int
    picture: str
    overlay: str
    infected: bool


def grey(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Hounsfield units in the lung window as grey values."""
    return grey_levels(hu, *LUNG_WINDOW)


def axial_views(
    hu: NDArray[np.floating],
    classes: Mapping[str, Mask],
    lungs: Mask,
    pixel: tuple[float, float],
    at_most: int,
) -> list[SliceView]:
    """Slices of a volume (z, y, x) from foot to head, every n-th where there are more than ``at_most``.

    Args:
        hu: Hounsfield units.
        classes: Name of a class to its mask; the colours follow their order.
        lungs: Outlined.
        pixel: Millimetres along x and y, so that round things are drawn round.
        at_most: Number of slices.
    """
    shape = drawn_shape(hu.shape[1:], pixel[::-1])
    views = []
    for index in evenly_spread(len(hu), at_most):
        masks = {name: _resized(mask[index], shape) for name, mask in classes.items()}
        overlay = _overlay(masks, _resized(lungs[index], shape))
        picture = Image.fromarray(_shown(hu[index], shape))
        infected = any(bool(mask[index].any()) for mask in classes.values())
        views.append(SliceView(index, data_uri(picture), data_uri(overlay, lossless=True), infected))
    return views


def axial_picture(
    hu: NDArray[np.floating], masks: Sequence[Mask], lungs: Mask, pixel: tuple[float, float]
) -> NDArray[np.uint8]:
    """One slice (y, x) with its classes coloured and the lungs outlined, (row, column, 3) in square pixels.

    Args:
        hu: Hounsfield units.
        masks: Of the classes.
        lungs: Outlined.
        pixel: Millimetres along x and y.
    """
    shape = drawn_shape(hu.shape, pixel[::-1], max(hu.shape))
    picture = as_rgb(_shown(hu, shape))
    for position, mask in enumerate(masks):
        picture = blended(picture, rgb_of(position), OVERLAY_OPACITY / 255, _resized(mask, shape))
    return outlined(picture, {LUNG_OUTLINE: _resized(lungs, shape)})


def coronal_view(
    hu: NDArray[np.floating],
    classes: Mapping[str, Mask],
    parts: Mapping[str, Mask],
    spacing: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """The coronal slice with most lung, head up, with the outlines of lobes or zones and all classes coloured.

    Args:
        hu: Hounsfield units (z, y, x).
        classes: Name of a class to its mask.
        parts: Lobes or zones, which are outlined.
        spacing: Millimetres along x, y, z.
    """
    whole = np.logical_or.reduce(list(parts.values())) if parts else hu < -500
    y = int(whole.sum(axis=(0, 2)).argmax())
    shape = drawn_shape((hu.shape[0], hu.shape[2]), (spacing[2], spacing[0]))
    shown = as_rgb(_shown(hu[::-1, y], shape))
    for position, mask in enumerate(classes.values()):
        shown = blended(shown, rgb_of(position), OVERLAY_OPACITY / 255, _resized(mask[::-1, y], shape))
    return outlined(shown, {LUNG_OUTLINE: _borders({n: _resized(m[::-1, y], shape) for n, m in parts.items()}, shape)})


def _borders(parts: Mapping[str, Mask], shape: tuple[int, int]) -> Mask:
    """The outlines of all parts at once."""
    borders = np.zeros(shape, dtype=bool)
    for part in parts.values():
        borders |= part & ~ndimage.binary_erosion(part)
    return borders


def rgb_of(position: int) -> tuple[int, int, int]:
    """Colour of the class at a position, 0 to 255."""
    red, green, blue = (round(255 * part) for part in to_rgb(class_colour(position + 1)))
    return red, green, blue


def _overlay(masks: Mapping[str, Mask], lungs: Mask) -> Image.Image:
    """Transparent but for the classes and the lungs' outline."""
    picture = np.zeros((*lungs.shape, 4), np.uint8)
    picture[lungs & ~ndimage.binary_erosion(lungs)] = (*LUNG_OUTLINE, 200)
    for position, mask in enumerate(masks.values()):
        picture[mask] = (*rgb_of(position), OVERLAY_OPACITY)
    return Image.fromarray(picture)


def drawn_shape(shape: tuple[int, int], size: tuple[float, float], largest_side: int = LARGEST_SIDE) -> tuple[int, int]:
    """Height and width in square pixels of a slice, the longer side at most ``largest_side``."""
    extent = np.asarray(shape) * np.asarray(size)
    scale = min(largest_side, max(shape)) / extent.max()
    height, width = np.maximum(1, (extent * scale).round().astype(int))
    return int(height), int(width)


def _shown(hu: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Grey values of a slice in another height and width."""
    return np.asarray(Image.fromarray(grey(hu)).resize(shape[::-1], Image.Resampling.BILINEAR))


def _resized(mask: Mask, shape: tuple[int, int]) -> Mask:
    if mask.shape == shape:
        return mask
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)) > 0


def data_uri(picture: Image.Image | NDArray[np.uint8], *, lossless: bool = False) -> str:
    """A picture inside a page: WebP, small, read by every browser of the last years."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=QUALITY, lossless=lossless, method=2)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
