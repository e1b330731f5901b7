"""True and false positives of a map at 256 thresholds, from one histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.grey_histogram import GREY_VALUES

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdSweep:
    """Counts at the thresholds 1, 254/255, …, 1/255, 0, where prediction = map ≥ threshold.

    ``tp`` and ``fp`` have shape (256,) and rise from the strictest threshold to 0, where everything is
    predicted.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]

    @property
    def foreground(self) -> int:
        """Reference pixels."""
        return int(self.tp[-1])

    @property
    def background(self) -> int:
        """Pixels outside the reference."""
        return int(self.fp[-1])

    def dice(self) -> Curve:
        """2·TP / (2·TP + FP + FN) at each threshold; 0 where no true positive is left."""
        return _share(2 * self.tp, self.tp + self.fp + self.foreground)

    def sensitivity(self) -> Curve:
        """TP / (TP + FN) at each threshold; 0 where no true positive is left."""
        return _share(self.tp, np.full_like(self.tp, self.foreground))

    def precision(self) -> Curve:
        """TP / (TP + FP) at each threshold; 0 where no true positive is left."""
        return _share(self.tp, self.tp + self.fp)

    def specificity(self) -> Curve:
        """TN / (TN + FP) at each threshold, as it is defined."""
        return _share(self.background - self.fp, np.full_like(self.fp, self.background))


def threshold_sweep(quantised: NDArray[np.int64]) -> ThresholdSweep:
    """Sweep from ``quantised[c, k]``: pixels of class c whose value lies in [k/255, (k + 1)/255)."""
    falling = np.cumsum(quantised[:, ::-1], axis=1)
    return ThresholdSweep(tp=falling[1], fp=falling[0])


def sweep_of_map(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> ThresholdSweep:
    """Sweep of a map with values in [0, 1]; both arrays of one shape, any number of axes."""
    # A hair above k/255 · 255 so that k/255 itself, as stored in a float, stays at its own threshold.
    step = (probability.astype(np.float64) * (GREY_VALUES - 1) + 1e-9).astype(np.uint16)
    joint = np.bincount((step + GREY_VALUES * reference.astype(np.uint16)).ravel(), minlength=2 * GREY_VALUES)
    return threshold_sweep(joint.reshape(2, GREY_VALUES))


def _share(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> Curve:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
