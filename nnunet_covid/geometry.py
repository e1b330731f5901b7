"""Where the voxels of an image lie, and whether two images lie alike: the one meaning of "same grid".

Numbers only: reading them from a file is left to whoever reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SPACING_TOLERANCE = 1e-3  # relative; NIfTI stores spacings as 32-bit floats
DIRECTION_TOLERANCE = 1e-3  # of a cosine
ORIGIN_TOLERANCE = 0.1  # voxels

Aspect = Literal["spacing", "direction", "origin"]
TURNED = "RAS"


def turned_by(reader: str) -> str | None:
    """Storage order to which a reader of nnU-Net brings every image; None where images stay as they are stored."""
    return TURNED if reader.endswith("WithReorient") else None


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

    @property
    def is_blank(self) -> bool:
        """Whether it is what programs write that know of no place: 1 mm voxels at the origin along the axes."""
        axes = np.abs(np.reshape(self.direction, (len(self.origin), -1)))
        straight = bool((axes == np.eye(*axes.shape)).all())
        return straight and not any(self.origin) and set(self.spacing) == {1.0}


@dataclass(frozen=True)
class Turn:
    """How the axes of an array are exchanged and turned round so that it lies as DICOM lays a patient.

    Then axis 0 of a volume runs from foot to head, axis 1 from front to back, axis 2 from right to left.

    Attributes:
        order: For each of these axes, which axis of the array as stored it is.
        reversed: Which of them run the other way, after the exchange.
    """

    order: tuple[int, ...] = (0, 1, 2)
    reversed: tuple[int, ...] = ()

    @classmethod
    def upright(cls, geometry: Geometry | None) -> Turn:
        """Of a volume stored in any order; as it is stored where that is not known or there are but two axes."""
        if geometry is None or len(geometry.direction) != 9:
            return cls()
        cosines = np.reshape(geometry.direction, (3, 3))  # rows: left, back, head; columns: the file's axes x, y, z
        left_to_choose = np.abs(cosines)
        nearest = [0, 0, 0]
        for _ in range(3):
            place, axis = np.unravel_index(left_to_choose.argmax(), (3, 3))
            nearest[place] = int(axis)
            left_to_choose[place], left_to_choose[:, axis] = -1, -1
        order = tuple(2 - nearest[2 - target] for target in range(3))
        return cls(order, tuple(target for target in range(3) if cosines[2 - target, nearest[2 - target]] < 0))

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """A volume as stored, turned upright; anything but a volume is left as it is."""
        return np.flip(array.transpose(self.order), self.reversed) if array.ndim == 3 else array

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """A volume turned upright, as stored."""
        return np.flip(array, self.reversed).transpose(np.argsort(self.order)) if array.ndim == 3 else array

    def spacing(self, geometry: Geometry) -> tuple[float, ...]:
        """Millimetres along x, y and z of the volume turned upright."""
        return (
            tuple(geometry.spacing[2 - axis] for axis in self.order)[::-1]
            if len(geometry.spacing) == 3
            else geometry.spacing
        )


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
