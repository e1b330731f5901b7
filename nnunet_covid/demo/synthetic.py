"""Synthetic slices and volumes of chest CT with reference segmentations; the same seed gives the same picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.demo.chest import Chest, CTSlice
from nnunet_covid.demo.fields import Array

LEVELS = (0.2, 0.88)
"""Heights, as a part of the lungs' height, between which single slices are taken."""
MINIMUM_INFECTION = 0.02
"""Least part of the lungs in a single slice that is infected."""


@dataclass(frozen=True)
class CTVolume:
    """A stack of axial slices, from the apex down.

    Attributes:
        hounsfield: (slices, rows, columns), HU.
        labels: 0 background, 1 ground glass, 2 consolidation; same shape.
        lungs: 0 outside, 1 right lung, 2 left lung; same shape.
        spacing: Of slices, rows and columns, mm.
    """

    hounsfield: NDArray[np.float32]
    labels: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def grid(size: int, pixel: float, centre: float = 0.0) -> Array:
    """Positions of ``size`` pixels around ``centre``, mm."""
    return centre + pixel * (np.arange(size, dtype=np.float64) - 0.5 * (size - 1))


def synthetic_slice(seed: int, *, pixel: float = 1.3, branches: int = 1100) -> CTSlice:
    """A slice through a lesion, cut to the box around the lungs.

    Args:
        seed: Chooses the person and the height.
        pixel: Size of a pixel, mm.
        branches: As in :meth:`nnunet_covid.demo.chest.Chest.draw`.
    """
    chest = Chest.draw(seed, branches=branches)
    return lung_box_slice(chest, infected_level(chest), pixel=pixel)


def lung_box_slice(chest: Chest, z: float, *, pixel: float = 1.3, margin: float = 6.0) -> CTSlice:
    """The slice at height z, cut to the box around the lungs.

    Args:
        chest: The person.
        z: Height, mm.
        pixel: Size of a pixel, mm.
        margin: Between the lungs and the border of the picture, mm.

    Raises:
        ValueError: If there is no lung at this height.
    """
    lungs = _coarse(chest, z).lungs > 0
    if not lungs.any():
        msg = f"there is no lung at z = {z} mm; the lungs reach from 0 to about {chest.anatomy.height:.0f} mm"
        raise ValueError(msg)
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    x, y = _coarse_grid(chest)
    wide = np.arange(x[columns[0]] - margin, x[columns[-1]] + margin, pixel)
    high = np.arange(y[rows[0]] - margin, y[rows[-1]] + margin, pixel)
    return chest.slice(wide, high, z)


def square_slice(seed: int, *, size: int, field: float = 330.0, branches: int = 1100) -> CTSlice:
    """A square slice through a lesion with the whole chest in it.

    Args:
        seed: Chooses the person and the height.
        size: Rows and columns.
        field: Width of the picture, mm.
        branches: As in :meth:`nnunet_covid.demo.chest.Chest.draw`.
    """
    chest = Chest.draw(seed, branches=branches)
    pixel = field / size
    return chest.slice(grid(size, pixel), grid(size, pixel, 8.0), infected_level(chest))


def synthetic_volume(
    seed: int, *, size: int = 160, spacing: tuple[float, float, float] = (5.0, 2.4, 2.4), branches: int = 1100
) -> CTVolume:
    """The whole chest.

    Args:
        seed: Chooses the person.
        size: Rows and columns.
        spacing: Of slices, rows and columns, mm; rows and columns must be equally far apart.
        branches: As in :meth:`nnunet_covid.demo.chest.Chest.draw`.

    Raises:
        ValueError: If the pixels are not square.
    """
    between, row, column = spacing
    if row != column:
        msg = f"pixels must be square, but rows are {row} mm and columns {column} mm apart"
        raise ValueError(msg)
    chest = Chest.draw(seed, branches=branches)
    x, y = grid(size, column), grid(size, row, 8.0)
    slices = [chest.slice(x, y, float(z)) for z in np.arange(0.5 * between, chest.anatomy.height, between)]
    return CTVolume(
        np.stack([s.hounsfield for s in slices]),
        np.stack([s.labels for s in slices]),
        np.stack([s.lungs for s in slices]),
        spacing,
    )


def infected_level(chest: Chest) -> float:
    """The height of the centre of a lesion, mm: of the first that takes up enough of the slice, else of the largest."""
    height = chest.anatomy.height
    levels = [float(np.clip(lesion.centre[2], LEVELS[0] * height, LEVELS[1] * height)) for lesion in chest.lesions]
    if not levels:
        return 0.5 * height
    best, best_part = levels[0], -1.0
    for z in levels:
        coarse = _coarse(chest, z)
        part = float(coarse.infection.sum() / max((coarse.lungs > 0).sum(), 1))
        if part >= MINIMUM_INFECTION:
            return z
        if part > best_part:
            best, best_part = z, part
    return best


def _coarse_grid(chest: Chest) -> tuple[Array, Array]:
    reach = 1.15 * max(chest.anatomy.half_width, chest.anatomy.half_depth)
    positions = np.arange(-reach, reach, 4.0, dtype=np.float64)
    return positions, positions + 4.0


def _coarse(chest: Chest, z: float) -> CTSlice:
    return chest.slice(*_coarse_grid(chest), z)
