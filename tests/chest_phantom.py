"""A chest drawn with ellipses, in Hounsfield units: body, couch, two lungs, trachea, vessels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ellipse(size: int, y: float, x: float, height: float, width: float) -> NDArray[np.bool_]:
    """A filled ellipse; centre and semi-axes relative to the side length."""
    rows, columns = np.mgrid[:size, :size] / size
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1


def chest_slice(size: int = 128, lung: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One axial slice in Hounsfield units and its lung mask; ``lung`` scales the lungs' semi-axes."""
    image = np.full((size, size), -1000, dtype=np.float32)
    image[ellipse(size, 0.5, 0.5, 0.36, 0.45)] = 40
    lungs = ellipse(size, 0.48, 0.3, 0.22 * lung, 0.13 * lung) | ellipse(size, 0.48, 0.7, 0.22 * lung, 0.13 * lung)
    image[lungs] = -850
    for y, x in ((0.4, 0.3), (0.55, 0.72), (0.5, 0.27)):
        vessel = ellipse(size, y, x, 0.015, 0.015) & lungs
        image[vessel] = 30
    image[ellipse(size, 0.4, 0.5, 0.03, 0.03)] = -1000  # trachea
    couch = ellipse(size, 0.95, 0.5, 0.05, 0.4)
    image[couch] = -100
    image[ellipse(size, 0.95, 0.5, 0.03, 0.36)] = -950  # the couch is hollow
    return image, lungs


def chest_volume(depth: int = 12, size: int = 128) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Slices whose lungs swell and shrink; none in the first and the last."""
    scales = np.sin(np.linspace(0, np.pi, depth))
    slices = [chest_slice(size, float(scale) if 0 < i < depth - 1 else 0.001) for i, scale in enumerate(scales)]
    return np.stack([image for image, _ in slices]), np.stack([lungs for _, lungs in slices])


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """2 |A ∩ B| / (|A| + |B|)."""
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))
