"""Mean absolute error of a probability map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def map_mae(
    probability: NDArray[np.floating],
    reference: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
) -> float:
    """MAE = mean |p − g| over all voxels, g the reference as 0 and 1.

    Args:
        probability: map with values in [0, 1], any number of axes.
        reference: mask of the same shape.
        valid: where False, the voxel does not count (ignore label).

    Raises:
        ValueError: if the shapes differ.
    """
    if probability.shape != reference.shape:
        msg = f"map {probability.shape} and reference {reference.shape} differ in shape"
        raise ValueError(msg)
    difference = np.abs(probability - reference)
    counted = difference if valid is None else difference[valid]
    return float(counted.mean(dtype=np.float64)) if counted.size else 0.0
