"""Counts of true and false positives and negatives, and the overlap metrics that are ratios of them.

Every metric of a label map that does not look at distances is here. All functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.borders import SLAB_VOXELS


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
    total = tp = predicted = expected = 0
    flat_prediction, flat_reference = prediction.reshape(-1), reference.reshape(-1)
    flat_valid = None if valid is None else valid.reshape(-1)
    for start in range(0, prediction.size, SLAB_VOXELS):
        slab = slice(start, start + SLAB_VOXELS)
        p, r = flat_prediction[slab], flat_reference[slab]
        if flat_valid is not None:
            p, r = p & flat_valid[slab], r & flat_valid[slab]
        total += p.size if flat_valid is None else int(np.count_nonzero(flat_valid[slab]))
        tp += int(np.count_nonzero(p & r))
        predicted += int(np.count_nonzero(p))
        expected += int(np.count_nonzero(r))
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
