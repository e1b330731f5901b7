"""How sure a prediction is, per voxel and per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def winning_probability(probabilities: NDArray[np.floating], *, regions: bool) -> NDArray[np.floating]:
    """Probability of what was predicted at each voxel, the least sure region counting.

    Args:
        probabilities: (C, *spatial), a softmax or one sigmoid per region.
        regions: Whether the channels are regions.
    """
    if regions:
        return np.maximum(probabilities, 1 - probabilities).min(0)
    return probabilities.max(0)


def agreement(labels: Sequence[NDArray[np.integer]], final: NDArray[np.integer]) -> NDArray[np.floating]:
    """Share of the mirrored predictions that say what the final one says, at each voxel.

    Args:
        labels: One label map of shape *spatial per mirroring.
        final: The label map of their mean.
    """
    return np.mean([one == final for one in labels], axis=0, dtype=np.float32)


def mean_confidence(confidence: NDArray[np.floating], predicted: NDArray[np.integer]) -> float:
    """Mean over the predicted foreground; over all voxels where there is none.

    Background fills most of an image and is nearly always sure, so that a mean over all voxels would say how little
    was found rather than how sure it is.
    """
    foreground = predicted > 0
    chosen = confidence[foreground] if foreground.any() else confidence
    return float(np.mean(chosen, dtype=np.float64))
