"""Synthetic slices and volumes of chest CT with reference segmentations; the same seed gives the same picture."""

from __future__ import annotations

import numpy as np

from nnunet_covid.demo.chest import HALF_WIDTH, Array, Chest, SyntheticCT

LEVELS = (0.2, 0.88)
"""Heights, as a part of the lungs' height, between which single slices are taken."""
MINIMUM_INFECTION = 0.02
"""Least part of the lungs in a single slice that is infected, where the person allows it."""


def grid(size: int, pixel: float, centre: float = 0.0) -> Array:
    """Positions of ``size`` pixels around ``centre``, mm."""
    return centre + pixel * (np.arange(size, dtype=np.float64) - 0.5 * (size - 1))


def synthetic_slice(seed: int, *, pixel: float = 1.3) -> SyntheticCT:
    """A slice through a lesion, cut to the box around the lungs.

    Args:
        seed: Chooses the person and the height.
        pixel: Size of a pixel, mm.
    """
    chest = Chest(seed)
    return lung_box_slice(chest, infected_level(chest), pixel=pixel)


def lung_box_slice(chest: Chest, z: float, *, pixel: float = 1.3, margin: float = 6.0) -> SyntheticCT:
    """The slice at height z, cut to the box around the lungs.

    Args:
        chest: The person.
        z: Height, mm.
        pixel: Size of a pixel, mm.
        margin: Between the lungs and the border of the picture, mm.

    Raises:
        ValueError: If there is no lung at this height.
    """
    x, y = _coarse_grid()
    lungs = chest.slice(x, y, z).lungs > 0
    if not lungs.any():
        msg = f"there is no lung at z = {z} mm; the lungs reach from 0 to about {chest.height:.0f} mm"
        raise ValueError(msg)
    rows, columns = y[lungs.any(axis=1)], x[lungs.any(axis=0)]
    wide = np.arange(columns[0] - margin, columns[-1] + margin, pixel)
    return chest.slice(wide, np.arange(rows[0] - margin, rows[-1] + margin, pixel), z)


def square_slice(seed: int, *, size: int, field: float = 330.0) -> SyntheticCT:
    """A square slice through a lesion with the whole chest in it.

    Args:
        seed: Chooses the person and the height.
        size: Rows and columns.
        field: Width of the picture, mm.
    """
    chest, pixel = Chest(seed), field / size
    return chest.slice(grid(size, pixel), grid(size, pixel, 8.0), infected_level(chest))


def synthetic_volume(
    seed: int, *, size: int = 160, spacing: tuple[float, float, float] = (5.0, 2.4, 2.4)
) -> SyntheticCT:
    """The whole chest.

    Args:
        seed: Chooses the person.
        size: Rows and columns.
        spacing: Of slices, rows and columns, mm; rows and columns must be equally far apart.

    Raises:
        ValueError: If the pixels are not square.
    """
    between, row, column = spacing
    if row != column:
        msg = f"pixels must be square, but rows are {row} mm and columns {column} mm apart"
        raise ValueError(msg)
    chest = Chest(seed)
    x, y = grid(size, column), grid(size, row, 8.0)
    slices = [chest.slice(x, y, float(z)) for z in np.arange(0.5 * between, chest.height, between)]
    return SyntheticCT(
        np.stack([s.hounsfield for s in slices]),
        np.stack([s.labels for s in slices]),
        np.stack([s.lungs for s in slices]),
        spacing,
    )


def infected_level(chest: Chest) -> float:
    """The height of the centre of a lesion, mm: of the first that takes up enough of the slice, else of the largest."""
    if not chest.lesions:
        return 0.5 * chest.height
    parts: dict[float, float] = {}
    for lesion in chest.lesions:
        z = float(np.clip(lesion.centre[2], LEVELS[0] * chest.height, LEVELS[1] * chest.height))
        coarse = chest.slice(*_coarse_grid(), z)
        parts[z] = float(coarse.infection.sum() / max((coarse.lungs > 0).sum(), 1))
        if parts[z] >= MINIMUM_INFECTION:
            return z
    return max(parts, key=lambda z: parts[z])


def _coarse_grid() -> tuple[Array, Array]:
    positions = np.arange(-1.3 * HALF_WIDTH, 1.3 * HALF_WIDTH, 4.0)
    return positions, positions + 4.0
