"""The protocol of the Inf-Net evaluation toolbox, for comparison with the tables of those papers only.

Its "Dice" is the mean over 256 thresholds of the min–max normalised map, not the Dice of a label map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.evaluation.e_measure import e_measure_curve
from nnunet_covid.evaluation.grey_histogram import GREY_VALUES, GreyHistogram, grey_histogram
from nnunet_covid.evaluation.s_measure import s_measure_of_moments
from nnunet_covid.evaluation.threshold_sweep import threshold_sweep

REFERENCE_GREY = 128  # a reference pixel is foreground above this value


@dataclass(frozen=True)
class ToolboxScores:
    """Means over the thresholds 1, 254/255, …, 0, S-measure and MAE of one slice."""

    dice: float
    sensitivity: float
    specificity: float
    precision: float
    e_measure: float
    s_measure: float
    mae: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return dict(vars(self))


def toolbox_scores(grey: NDArray[np.uint8], reference: NDArray[np.bool_]) -> ToolboxScores:
    """Score one 8-bit map of shape (rows, columns) against a reference; resized to the reference if need be.

    The map is min–max normalised (a constant map is only divided by 255); prediction = map ≥ threshold. Where
    no true positive is left, Dice, sensitivity, precision and specificity count as 0. The E-measure divides
    by w·h − 1.
    """
    return toolbox_scores_of_histogram(grey_histogram(resized_like(grey, reference.shape), reference))


def toolbox_scores_of_histogram(histogram: GreyHistogram) -> ToolboxScores:
    """Score a slice from its histogram; see :func:`toolbox_scores`."""
    lowest, highest = histogram.grey_range()
    offset, scale = (lowest, highest - lowest) if highest > lowest else (0, GREY_VALUES - 1)
    normalised = _normalised_greys(lowest, highest)
    by_class = histogram.by_class
    steps = (normalised * (GREY_VALUES - 1)).astype(np.int64)
    # As weights the counts become floats, which hold every whole number up to 2⁵³.
    quantised = [np.bincount(steps, weights=counts, minlength=GREY_VALUES) for counts in by_class]
    sweep = threshold_sweep(np.array(quantised, dtype=np.int64))
    hit = sweep.tp > 0
    background, foreground = by_class
    absolute = background @ normalised + foreground @ (1 - normalised)
    return ToolboxScores(
        dice=float(sweep.dice().mean()),
        sensitivity=float(sweep.sensitivity().mean()),
        specificity=float(np.where(hit, sweep.specificity(), 0.0).mean()),
        precision=float(sweep.precision().mean()),
        e_measure=float(e_measure_curve(sweep, less_one=True).mean()),
        s_measure=s_measure_of_moments(histogram.moments(offset=offset, scale=scale)),
        mae=float(absolute) / int(by_class.sum()),
    )


def resized_like(grey: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The map at the reference's (rows, columns), bicubic with antialiasing like MATLAB's ``imresize``."""
    if grey.shape == shape:
        return grey
    rows, columns = shape
    return np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC))


def as_grey(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map in [0, 1] as the 8-bit image that the toolbox would have read: round(255·p)."""
    return np.rint(probability * (GREY_VALUES - 1)).astype(np.uint8)


def _normalised_greys(lowest: int, highest: int) -> NDArray[np.float64]:
    """The normalised value of each grey value, in the toolbox's order of operations.

    A value equal to a threshold on paper may miss it in floating point; in this order it does so exactly
    where the double-precision tools do.
    """
    values = np.arange(GREY_VALUES) / (GREY_VALUES - 1)
    if highest == lowest:
        return values
    scaled = (values - values[lowest]) / (values[highest] - values[lowest])
    return np.clip(scaled, 0.0, 1.0)
