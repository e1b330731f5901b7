"""Radiodensities of the synthetic chest in Hounsfield units, and the window that turns them into grey values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AIR = -1000.0
LUNG = -865.0
FAT = -100.0
WATER = 0.0
BLOOD = 42.0
MUSCLE = 55.0
LIVER = 62.0
CARTILAGE = 110.0
TRABECULAR_BONE = 190.0
CORTICAL_BONE = 750.0

WINDOW = (-1250.0, 250.0)
"""Lower and upper end of the lung window of the public COVID-19 sets, HU."""


def to_grey(hounsfield: NDArray[np.floating], window: tuple[float, float] = WINDOW) -> NDArray[np.uint8]:
    r"""Grey value 0 to 255 of every radiodensity.

    .. math:: g = \mathrm{round}\left(255 \cdot \min\left(1, \max\left(0, \frac{h - a}{b - a}\right)\right)\right)

    Args:
        hounsfield: Radiodensities h, HU, any shape.
        window: Lower end a and upper end b, HU.

    Raises:
        ValueError: If the window is empty.
    """
    lower, upper = window
    if not lower < upper:
        msg = f"the window ends at {upper} HU but begins at {lower} HU"
        raise ValueError(msg)
    scaled = (np.asarray(hounsfield, dtype=np.float64) - lower) / (upper - lower)
    return np.rint(255.0 * np.clip(scaled, 0.0, 1.0)).astype(np.uint8)
