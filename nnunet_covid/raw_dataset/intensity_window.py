"""Hounsfield units to 8-bit grey values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_8_bit(hounsfield: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map [low, high] linearly to [0, 255], clipped and rounded; SSA-Net §4.2 uses [-1250, 250]."""
    scaled = (hounsfield.astype(np.float32) - low) / (high - low) * 255
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def from_8_bit(grey: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """The Hounsfield units that ``to_8_bit`` mapped to these grey values; what was clipped stays lost."""
    return (grey.astype(np.float32) / 255 * (high - low) + low).astype(np.float32)
