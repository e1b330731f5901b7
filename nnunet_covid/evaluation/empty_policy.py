"""What a metric is worth where the reference, the prediction or both have no foreground."""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal

import numpy as np

Emptiness = Literal["", "both", "prediction", "reference"]


class EmptyPolicy(str, Enum):
    """How a case with an empty mask enters the table.

    ``SCORE``: both empty → overlaps and NSD 1, distances 0; only one empty → overlaps and NSD 0, HD95 the
    diagonal of the image. ``NAN_BOTH``: as ``SCORE``, but a case where both are empty has no value and is
    left out of the mean (the convention of nnU-Net's own ``summary.json``). ``NAN_REFERENCE``: every case
    without reference foreground is left out of the mean.
    """

    SCORE = "score"
    NAN_BOTH = "nan-both"
    NAN_REFERENCE = "nan-reference"


def emptiness(prediction_size: int, reference_size: int) -> Emptiness:
    """Which of the two masks is empty, from their numbers of voxels."""
    if prediction_size and reference_size:
        return ""
    if prediction_size:
        return "reference"
    return "prediction" if reference_size else "both"


def left_out(empty: Emptiness, policy: EmptyPolicy) -> bool:
    """Whether this policy keeps such a case out of the mean."""
    if policy is EmptyPolicy.NAN_BOTH:
        return empty == "both"
    return policy is EmptyPolicy.NAN_REFERENCE and empty in ("both", "reference")


def empty_overlap(empty: Emptiness) -> float:
    """The overlap (Dice, IoU, NSD …) under ``SCORE``: 1 where both are empty, else 0."""
    return 1.0 if empty == "both" else 0.0


def empty_distance(empty: Emptiness, shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """The distance under ``SCORE``: 0 where both are empty, else the diagonal √Σ(nᵢ·sᵢ)² of the image."""
    if empty == "both":
        return 0.0
    return math.sqrt(float(np.sum((np.asarray(shape) * np.asarray(spacing)) ** 2)))
