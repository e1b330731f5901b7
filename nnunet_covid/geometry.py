"""Where the voxels of an image lie, and whether two images lie alike: the one meaning of "same grid".

Numbers only: reading them from a file is left to whoever reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

SPACING_TOLERANCE = 1e-3  # relative; NIfTI stores spacings as 32-bit floats
DIRECTION_TOLERANCE = 1e-3  # of a cosine
ORIGIN_TOLERANCE = 0.1  # voxels

Aspect = Literal["spacing", "direction", "origin"]


@dataclass(frozen=True)
class Geometry:
    """Place of a voxel grid in space, all in SimpleITK's order (x, y, z) and in millimetres.

    Arrays have the opposite order (z, y, x). ``direction`` holds the cosines row by row. Origin and direction are empty
    where a format knows nothing but the spacing; an image without even that, such as a PNG, has no geometry.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()

    @classmethod
    def of_itk(cls, image: Any) -> Geometry:
        """Of a SimpleITK image, or of a reader that has read the header of its file."""
        return cls(tuple(image.GetSpacing()), tuple(image.GetOrigin()), tuple(image.GetDirection()))


def difference_of(first: Geometry | None, second: Geometry | None) -> Aspect | None:
    """In what two grids of equal size differ; None where they agree.

    They agree in spacing up to a thousandth, in every cosine of the direction up to 0.001, and in the origin up to a
    tenth of a voxel along each axis of the second.
    """
    if first is None or second is None:
        return None if first is second else "spacing"
    if not _close(first.spacing, second.spacing, rtol=SPACING_TOLERANCE, atol=0.0):
        return "spacing"
    if not _close(first.direction, second.direction, rtol=0.0, atol=DIRECTION_TOLERANCE):
        return "direction"
    if first.origin == second.origin:
        return None
    if len(first.origin) != len(second.origin):
        return "origin"
    axes = np.reshape(second.direction, (len(second.origin), -1))
    shift = np.subtract(first.origin, second.origin) @ axes / second.spacing
    return None if np.abs(shift).max() <= ORIGIN_TOLERANCE else "origin"


def _close(first: tuple[float, ...], second: tuple[float, ...], *, rtol: float, atol: float) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=rtol, atol=atol))
