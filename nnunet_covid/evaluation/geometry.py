"""Where the voxels of a label map lie, and in what two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_covid.evaluation.metrics import Units

# A natural image has no spacing: nnU-Net writes (999, 1, 1), so do its readers of 2D ITK images with 999 ·
# max.
PIXELS = Units(length="px", size="px")
SPACING_TOLERANCE = 1e-3  # relative; NIfTI stores spacings as 32-bit floats
ORIGIN_TOLERANCE = 0.1  # voxels
DIRECTION_TOLERANCE = 1e-3  # of a cosine
REMEDY = "resample the prediction onto the reference, or copy the reference's header where only the header is wrong"


@dataclass(frozen=True)
class Geometry:
    """Shape in numpy order, spacing in the same order, and units; 2D images have two axes here.

    ``origin`` and ``direction`` are ITK's: (x, y, z) in mm, and the cosines row by row. Both are empty where the
    format or its reader knows no place in space.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    units: Units
    origin: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()

    def same_spacing(self, other: Geometry) -> bool:
        """Whether both spacings agree up to the rounding of file headers."""
        return _close(self.spacing, other.spacing, relative=SPACING_TOLERANCE)

    def same_direction(self, other: Geometry) -> bool:
        """Whether the axes point the same way."""
        return _close(self.direction, other.direction, absolute=DIRECTION_TOLERANCE)

    def same_origin(self, other: Geometry) -> bool:
        """Whether the first voxels lie at the same place, up to a tenth of a voxel along each axis of the other."""
        if self.origin == other.origin:
            return True
        if len(self.origin) != len(other.origin):
            return False
        axes = np.reshape(other.direction, (len(other.origin), -1))
        shift = np.subtract(self.origin, other.origin) @ axes / other.spacing[::-1]
        return bool(np.abs(shift).max() <= ORIGIN_TOLERANCE)


def difference_of(prediction: Geometry, reference: Geometry) -> str | None:
    """In what a prediction's geometry differs from its reference's, in words, and the remedy; None if they agree."""
    if prediction.shape != reference.shape:
        return f"shape {prediction.shape} of the prediction differs from the reference's {reference.shape}"
    for name, agree in (
        ("spacing", prediction.same_spacing),
        ("direction", prediction.same_direction),
        ("origin", prediction.same_origin),
    ):
        if not agree(reference):
            mine, theirs = _rounded(getattr(prediction, name)), _rounded(getattr(reference, name))
            return f"{name} {mine} of the prediction differs from the reference's {theirs}; {REMEDY}"
    return None


def _close(
    first: tuple[float, ...], second: tuple[float, ...], *, relative: float = 0.0, absolute: float = 0.0
) -> bool:
    if first == second:
        return True
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=relative, atol=absolute))


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(v, 4) + 0.0 for v in values)  # never -0.0
