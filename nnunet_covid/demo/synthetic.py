"""Synthetic slices and volumes of chest CT with reference segmentations; the same seed gives the same picture."""

from __future__ import annotations

import numpy as np

from nnunet_covid.demo.chest import HALF_WIDTH, Array, Chest, SyntheticCT

LEVELS = (0.2, 0.88)
"""Heights, as a part of the lungs' height, between which single slices are taken."""
MINIMUM_INFECTION = 0.02
"""Least part of the lungs in a single slice that is infected, where the person allows it."""
POSITIONS = np.arange(-1.3 * HALF_WIDTH, 1.3 * HALF_WIDTH, 4.0)
COARSE_GRID = (POSITIONS, POSITIONS + 4.0)
"""Columns and rows of a slice that is drawn to look where the lungs and lesions are, mm."""


def grid(size: int, pixel: float, centre: float = 0.0) -> Array:
    """Positions of ``size`` pixels around ``centre``, mm."""
    return centre + pixel * (np.arange(size, dtype=np.float64) - 0.5 * (size - 1))


def synthetic_slice(seed: int, *, pixel: float = 1.3) -> SyntheticCT:
    """A slice through a lesion, cut to the box around the lungs; ``seed`` chooses the person and the height."""
    chest = Chest(seed)
    return lung_box_slice(chest, infected_level(chest), pixel=pixel)


def lung_box_slice(chest: Chest, z: float, *, pixel: float = 1.3) -> SyntheticCT:
    """The slice at a height z with lung in it, mm, with pixels of ``pixel`` mm, cut to 6 mm around the lungs."""
    x, y = COARSE_GRID
    lungs = chest.slice(x, y, z).lungs > 0
    rows, columns = y[lungs.any(axis=1)], x[lungs.any(axis=0)]
    wide, high = (np.arange(p[0] - 6.0, p[-1] + 6.0, pixel) for p in (columns, rows))
    return chest.slice(wide, high, z)


def synthetic_volume(seed: int, *, size: int = 160, thickness: float = 5.0, pixel: float = 2.4) -> SyntheticCT:
    """The whole chest.

    Args:
        seed: Chooses the person.
        size: Rows and columns.
        thickness: From slice to slice, mm.
        pixel: Size of a pixel, mm.
    """
    return volume_of(Chest(seed), size=size, thickness=thickness, pixel=pixel)


def volume_of(chest: Chest, *, size: int, thickness: float, pixel: float) -> SyntheticCT:
    """The whole chest of a person; see :func:`synthetic_volume`."""
    x, y = grid(size, pixel), grid(size, pixel, 8.0)
    slices = [chest.slice(x, y, float(z)) for z in np.arange(0.5 * thickness, chest.height, thickness)]
    return SyntheticCT(
        np.stack([s.hounsfield for s in slices]),
        np.stack([s.labels for s in slices]),
        np.stack([s.lungs for s in slices]),
        (thickness, pixel, pixel),
    )


def infected_level(chest: Chest) -> float:
    """The height of the centre of a lesion, mm: of the first that takes up enough of the slice, else of the largest."""
    parts: dict[float, float] = {}
    for lesion in chest.lesions:
        z = float(np.clip(lesion.centre[2], LEVELS[0] * chest.height, LEVELS[1] * chest.height))
        coarse = chest.slice(*COARSE_GRID, z)
        parts[z] = float(coarse.infection.sum() / max((coarse.lungs > 0).sum(), 1))
        if parts[z] >= MINIMUM_INFECTION:
            return z
    return max(parts, key=lambda z: parts[z])
