"""Counts of true and false positives and negatives, their ratios, and what an empty mask is worth.

Every metric of a label map that does not look at distances is here. All functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Emptiness = Literal["", "both", "prediction", "reference"]


@dataclass(frozen=True)
class ConfusionCounts:
    """Numbers of voxels: TP, FP, FN, TN of one class against everything else."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def prediction_size(self) -> int:
        """TP + FP."""
        return self.tp + self.fp

    @property
    def reference_size(self) -> int:
        """TP + FN."""
        return self.tp + self.fn

    @property
    def total(self) -> int:
        """All voxels that count."""
        return self.tp + self.fp + self.fn + self.tn


def confusion_counts(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
) -> ConfusionCounts:
    """Count agreements and disagreements of two masks of equal shape.

    Args:
        prediction: predicted mask, any number of axes.
        reference: reference mask, same shape.
        valid: where False, the voxel does not count (ignore label).

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != reference.shape:
        msg = f"masks differ in shape: prediction {prediction.shape}, reference {reference.shape}"
        raise ValueError(msg)
    if valid is not None:
        prediction, reference = prediction & valid, reference & valid
    total = prediction.size if valid is None else int(np.count_nonzero(valid))
    tp, predicted, expected = (int(np.count_nonzero(m)) for m in (prediction & reference, prediction, reference))
    fp, fn = predicted - tp, expected - tp
    return ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)


def dice(counts: ConfusionCounts) -> float:
    """Dice = 2·TP / (2·TP + FP + FN) (Dice, Ecology 1945); 1 where both masks are empty."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, if_undefined=1.0)


def iou(counts: ConfusionCounts) -> float:
    """IoU = TP / (TP + FP + FN) (Jaccard, 1912); 1 where both masks are empty."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, if_undefined=1.0)


def sensitivity(counts: ConfusionCounts) -> float:
    """TP / (TP + FN), also called recall; without reference foreground: 1 if nothing is predicted, else 0."""
    return _ratio(counts.tp, counts.tp + counts.fn, if_undefined=float(counts.fp == 0))


def specificity(counts: ConfusionCounts) -> float:
    """TN / (TN + FP); without reference background: 1 if everything is predicted, else 0."""
    return _ratio(counts.tn, counts.tn + counts.fp, if_undefined=float(counts.fn == 0))


def precision(counts: ConfusionCounts) -> float:
    """TP / (TP + FP); with nothing predicted: 1 if there is nothing to find, else 0.

    The collaborative-learning paper prints this quantity under the name of specificity.
    """
    return _ratio(counts.tp, counts.tp + counts.fp, if_undefined=float(counts.fn == 0))


def label_mae(counts: ConfusionCounts) -> float:
    """Mean absolute difference of the two masks as numbers 0 and 1: (FP + FN) / all voxels."""
    return _ratio(counts.fp + counts.fn, counts.total, if_undefined=0.0)


def _ratio(numerator: int, denominator: int, *, if_undefined: float) -> float:
    return numerator / denominator if denominator else if_undefined


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
