"""Slices that show nearly the same thing on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.dataset_check.thumbnails import unit

DUPLICATE = 0.77
"""Correlation of thumbnails after subtracting their mean. On COVID-SemiSeg the known near-duplicates between the
official training and test slices (5 and 93, 17 and 91, 33 and 97) reach 0.78 to 0.94; over ten coronacases
patients no two slices of different patients exceed 0.765."""


def near_duplicates(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]
) -> list[tuple[int, int, float]]:
    """Pairs of nearly equal images, one of each list, most similar first.

    What all images have in common (two lungs, a spine) says nothing about a pair: the mean thumbnail of the first
    list is taken off before correlating. With fewer than three images in it there is no meaningful mean.

    Args:
        first: Thumbnails.
        second: Thumbnails of the same shape.

    Returns:
        Index in the first list, index in the second, correlation.
    """
    if not len(first) or not len(second):
        return []
    mean = np.mean(first, axis=0) if len(first) >= 3 else np.zeros_like(first[0])
    a = np.stack([unit(image - mean).ravel() for image in first])
    b = np.stack([unit(image - mean).ravel() for image in second])
    similarity = a @ b.T
    pairs = np.argwhere(similarity > DUPLICATE)
    found = [(int(i), int(j), float(similarity[i, j])) for i, j in pairs]
    return sorted(found, key=lambda pair: -pair[2])
