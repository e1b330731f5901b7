"""Colour overlays: the image, then every map over it, side by side with the outline of what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

COLOUR_MAP = "turbo"
OUTLINE = (255, 255, 255)
OPACITY = 0.55
LUNG_WINDOW = (-1250.0, 250.0)
"""Hounsfield units shown from black to white (SSA-Net, §4.2)."""
PANEL_INCHES = 2.6


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


def grey_slice(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A slice for display: Hounsfield units in the lung window, anything else between its outer half per cents."""
    low, high = LUNG_WINDOW if image.min() < -200 else tuple(np.percentile(image, (0.5, 99.5)))
    return (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """To 0 … 1 from the smallest value to the 99.9th per cent; all zero where the map is constant."""
    low, high = float(heat.min()), float(np.percentile(heat, 99.9))
    if high <= low:
        high = float(heat.max())
    return np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)


def heat_over_grey(
    grey: NDArray[np.uint8], heat: NDArray[np.float32], predicted: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """A map of values 0 to 1 in colour over a grey slice, the prediction outlined, (y, x) to (y, x, 3)."""
    colour = colormaps[COLOUR_MAP](heat)[..., :3] * 255
    picture = (1 - OPACITY) * grey[..., None] + OPACITY * colour
    return outlined(picture.round().astype(np.uint8), predicted)


def outlined(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture (y, x, 3) with the outline of a mask."""
    result = picture.copy()
    result[mask & ~ndimage.binary_erosion(mask)] = OUTLINE
    return result


def write_overlay(
    path: Path,
    image: NDArray[np.float32],
    predicted: NDArray[np.bool_],
    maps: Mapping[str, NDArray[np.float32]],
    *,
    title: str,
    aspect: float = 1.0,
    columns: int = 4,
) -> None:
    """Draw the sheet: image, then each map over it.

    Args:
        path: The PNG file; written under a temporary name and renamed.
        image: One slice of the first channel, (y, x).
        predicted: The same slice of the predicted foreground.
        maps: Heading to the slice of a map with values 0 to 1.
        title: Above everything.
        aspect: Height of a pixel over its width.
        columns: Panels beside each other.
    """
    grey = grey_slice(image)
    panels = {"image, predicted": outlined(np.repeat(grey[..., None], 3, axis=-1), predicted)}
    panels |= {heading: heat_over_grey(grey, heat, predicted) for heading, heat in maps.items()}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    shape = image.shape[0] * aspect / image.shape[1]
    size = (columns * PANEL_INCHES, rows * (PANEL_INCHES * shape + 0.28) + 0.35)
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    for number, (heading, panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(panel, aspect=aspect, interpolation="nearest")
        axes.set_title(heading, fontsize=8, pad=3)
        axes.set_axis_off()
    top = 1 - 0.35 / size[1]
    figure.subplots_adjust(0.01, 0.01, 0.99, top - 0.2 / size[1], wspace=0.03, hspace=0.14)
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / size[1], va="top")
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    temporary = path.with_name(f".{path.stem}.tmp.png")
    Image.open(drawn).convert("RGB").save(temporary, optimize=True)
    temporary.replace(path)
