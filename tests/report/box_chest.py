"""A chest of boxes whose every number is known in closed form: body, two lungs, lesions of two classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

SPACING = (1.5, 2.0, 2.5)  # millimetres along left, back, head
GROUND_GLASS, CONSOLIDATION = 1, 2
CLASSES = {"ground glass": GROUND_GLASS, "consolidation": CONSOLIDATION}


@dataclass(frozen=True)
class BoxChest:
    """Images in the order left, posterior, superior; box corners in voxels."""

    image: sitk.Image
    labels: sitk.Image
    lungs: sitk.Image
    lobes: sitk.Image


def rotation(degrees: float, axis: int) -> np.ndarray:
    """A rotation about one of the three axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.eye(3)
    first, second = [a for a in range(3) if a != axis]
    turned[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return turned


def box_chest(direction: np.ndarray | None = None) -> BoxChest:
    """80 x 60 x 48 voxels (x, y, z): right lung x 10-35, left lung x 45-70, both y 15-45, z 6-42 (36 slices)."""
    hu = np.full((48, 60, 80), -1000, np.int16)
    hu[:, 5:55, 5:75] = 40
    lungs = np.zeros(hu.shape, np.uint8)
    lungs[6:42, 15:45, 10:35] = lungs[6:42, 15:45, 45:70] = 1
    hu[lungs > 0] = -850
    labels = np.zeros(hu.shape, np.uint8)
    labels[6:12, 15:45, 10:35] = GROUND_GLASS  # half of the right lung's lowest zone
    labels[12:14, 20:30, 10:20] = CONSOLIDATION  # 200 voxels that touch it
    labels[30:31, 20:25, 50:60] = CONSOLIDATION  # 50 voxels in the left lung, apart
    hu[labels == GROUND_GLASS] = -400
    hu[labels == CONSOLIDATION] = 20
    lobes = np.zeros(hu.shape, np.uint8)
    for side, boxes in {"left": ((1, 24, 42), (2, 6, 24)), "right": ((3, 30, 42), (4, 18, 30), (5, 6, 18))}.items():
        for value, low, high in boxes:
            lobes[low:high, 15:45, slice(10, 35) if side == "right" else slice(45, 70)] = value
    images = []
    for array in (hu, labels, lungs, lobes):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetOrigin((-60.0, -58.0, 12.0))
        image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
        images.append(image)
    return BoxChest(*images)
