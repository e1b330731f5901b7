"""An image with its segmentation in memory, on the way from the source to the raw data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """Where the voxels lie: all in SimpleITK's order (x, y, z), millimetres."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass
class Scan:
    """One image and what belongs to it.

    Attributes:
        image: Shape (y, x) for a slice, (z, y, x) for a volume.
        label: Class indices, same shape, or ``None`` where there is no reference.
        lungs: Lung mask, same shape, boolean, or ``None``.
        geometry: ``None`` for pictures without a physical size.
        is_hu: Whether the values are Hounsfield units.
        notes: What the reader found worth recording in ``conversion.json``.
    """

    image: NDArray[Any]
    label: NDArray[np.uint8] | None = None
    lungs: NDArray[np.bool_] | None = None
    geometry: Geometry | None = None
    is_hu: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
