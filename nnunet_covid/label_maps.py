"""The values of label maps: whole numbers, or nearly; which of them occur.

Stands at the bottom, because converters and evaluation read label maps by readers of their own but agree on this. What
the values mean says :mod:`nnunet_covid.dataset_json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.volume_files import NOT_FINITE

TOLERANCE = 1e-3
"""Values this close to a whole number are taken for it: programs scale whole numbers and store 32-bit floats."""
FEW_VALUES = 16
COUNTED_VALUES = 1 << 16
MOST_CLASSES, LARGEST_VALUE = 10, 32
"""A picture of tissue has more grey levels than a label map has values, and higher ones."""

Labels = NDArray[np.integer]


def whole_numbers(values: NDArray[Any]) -> Labels:
    """The values of a label map as integers, rounded where they are nearly whole.

    Args:
        values: Of any shape.

    Raises:
        ValueError: If any is no number or a fraction; says which.
    """
    if np.issubdtype(values.dtype, np.integer):
        return cast("Labels", values)
    if values.dtype == np.bool_:
        return cast("Labels", values.astype(np.uint8))
    if not np.isfinite(values).all():
        raise ValueError(NOT_FINITE)
    low, high = float(values.min()), float(values.max())
    whole: Labels = np.rint(values).astype(np.uint8 if low > -0.5 and high <= 255 else np.int64)
    far = np.abs(values - whole) > TOLERANCE
    if far.any():
        found = listed_values(np.unique(values[far]).tolist())
        raise ValueError(
            f"holds fractions ({found}) where a label map holds whole numbers; export it without scaling, smoothing or "
            "interpolation, or round its values"
        )
    return whole


def distinct_values(labels: Labels) -> list[int]:
    """The values that occur, ascending."""
    if labels.size == 0:
        return []
    low, high = int(labels.min()), int(labels.max())
    if high - low < FEW_VALUES:  # looking for each of a few is faster than counting, and counting than sorting
        return [value for value in range(low, high + 1) if (labels == value).any()]
    if high - low < COUNTED_VALUES:
        return [int(v) for v in np.flatnonzero(np.bincount((labels.ravel() - low).astype(np.intp))) + low]
    return [int(value) for value in np.unique(labels)]


def values_like_labels(image: NDArray[Any]) -> list[int]:
    """The values of what should be an image, where they are those of a label map.

    That is 0 and few other whole numbers, small ones or, of a black and white picture, up to 255. Empty where they are
    not, and for an image of one value.
    """
    few = image.ravel()[:: max(1, image.size // 4096)]  # enough to know most images by
    for part in (few, image):
        if len(np.unique(part)) > MOST_CLASSES:
            return []
    found = [float(value) for value in np.unique(image)]
    largest = LARGEST_VALUE if len(found) > 3 else 255
    plausible = len(found) > 1 and found[0] == 0 and found[-1] <= largest and all(v.is_integer() for v in found)
    return [int(value) for value in found] if plausible else []


def listed_values(values: Sequence[float]) -> str:
    """The first eight, for a message."""
    return ", ".join(f"{value:.7g}" for value in values[:8]) + (", …" if len(values) > 8 else "")
