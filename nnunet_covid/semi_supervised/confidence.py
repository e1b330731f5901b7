"""How sure a prediction is, per voxel and per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def votes(logits: Sequence[NDArray[np.floating]], *, regions: bool) -> NDArray[np.float32]:
    """Share of the mirrored predictions that vote for each channel, in the place of its probability.

    A softmax votes for its largest channel, a region's sigmoid for the region where it is above one half.

    Args:
        logits: One array (C, *spatial) per mirroring, mirrored back.
        regions: Whether the channels are regions.
    """
    total = np.zeros(logits[0].shape, np.float32)
    for one in logits:
        if regions:
            total += one > 0
        else:
            winner = one.argmax(0)[None]
            np.put_along_axis(total, winner, np.take_along_axis(total, winner, 0) + 1, 0)
    return total / np.float32(len(logits))


def certainty_of_prediction(
    probabilities: NDArray[np.floating], certainty: NDArray[np.floating], *, regions: bool
) -> NDArray[np.floating]:
    """How certain what was predicted is at each voxel, the least certain region counting.

    Args:
        probabilities: (C, *spatial), a softmax or one sigmoid per region: they say what is predicted.
        certainty: As many channels between 0 and 1: the probabilities themselves, or :func:`votes`.
        regions: Whether the channels are regions.
    """
    if regions:
        return np.where(probabilities > 0.5, certainty, 1 - certainty).min(0)
    return np.take_along_axis(certainty, probabilities.argmax(0)[None], 0)[0]


def mean_confidence(confidence: NDArray[np.floating], predicted: NDArray[np.integer]) -> float:
    """Mean over the predicted foreground; over all voxels where there is none.

    Background fills most of an image and is nearly always sure, so that a mean over all voxels would say how little
    was found rather than how sure it is.
    """
    foreground = predicted > 0
    chosen = confidence[foreground] if foreground.any() else confidence
    return float(np.mean(chosen, dtype=np.float64))
