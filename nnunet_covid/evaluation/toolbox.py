"""The protocol of the Inf-Net evaluation toolbox, and all map-based scores of a case.

The toolbox's metrics are for comparison with the tables of those papers only: its "Dice" is the mean over 256
thresholds of the min–max normalised map, not the Dice of a label map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.evaluation.map_metrics import (
    GREY_VALUES,
    GreyHistogram,
    e_measure_curve,
    grey_histogram,
    map_mae,
    mean_e_measure,
    s_measure,
    s_measure_of_moments,
    threshold_sweep,
)

ProbabilityMap = NDArray[np.floating] | NDArray[np.uint8]


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


def map_scores(
    probability: ProbabilityMap,
    reference: NDArray[np.bool_],
    ignored: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Scores by metric key for a map of shape (rows, columns) or (slices, rows, columns).

    S-measure, E-measure and the toolbox are defined on images: a volume's score is the mean over its slices.

    Args:
        probability: 8-bit greys (255 is certainty) or floats in [0, 1].
        reference: mask of the same shape.
        ignored: voxels that do not count. The error leaves them out; the structural metrics see background in both
            map and reference there, because they need whole images.

    Raises:
        ValueError: if shapes differ.
    """
    if probability.shape != reference.shape:
        msg = f"map {probability.shape} and reference {reference.shape} differ in shape"
        raise ValueError(msg)
    if ignored is not None and ignored.any():
        probability = np.where(ignored, probability.dtype.type(0), probability)
        reference = reference & ~ignored
        counted = ignored.size - int(np.count_nonzero(ignored))
    else:
        counted = reference.size
    slices = zip(probability, reference, strict=True) if reference.ndim == 3 else [(probability, reference)]
    per_slice = [slice_scores(p, r) for p, r in slices]
    scores = {key: float(np.mean([s[key] for s in per_slice])) for key in per_slice[0]}
    # Ignored voxels hold an error of zero by now, so only the denominator changes.
    scores["map_mae"] = scores["map_mae"] * reference.size / counted if counted else 0.0
    return scores


def slice_scores(probability: ProbabilityMap, reference: NDArray[np.bool_]) -> dict[str, float]:
    """Scores of one slice, both arrays of shape (rows, columns)."""
    if probability.dtype == np.uint8:
        histogram = grey_histogram(cast("NDArray[np.uint8]", probability), reference)
        scores = _scores_of_grey(histogram)
    else:
        floats = cast("NDArray[np.floating]", probability)
        histogram = grey_histogram(as_grey(floats), reference)
        scores = {
            "map_mae": map_mae(floats, reference),
            "s_measure": s_measure(floats, reference),
            "mean_e_measure": mean_e_measure(floats, reference),
        }
    toolbox = vars(toolbox_scores_of_histogram(histogram))
    return scores | {f"toolbox_{name}": value for name, value in toolbox.items()}


def _scores_of_grey(histogram: GreyHistogram) -> dict[str, float]:
    """The same three scores from the histogram: an 8-bit map holds nothing else."""
    background, foreground = histogram.by_class
    greys = np.arange(GREY_VALUES, dtype=np.int64)
    error = int(background @ greys) + int(foreground @ (GREY_VALUES - 1 - greys))
    pixels = int(background.sum() + foreground.sum())
    return {
        "map_mae": error / (GREY_VALUES - 1) / pixels,
        "s_measure": s_measure_of_moments(histogram.moments(offset=0, scale=GREY_VALUES - 1)),
        "mean_e_measure": float(e_measure_curve(threshold_sweep(histogram.by_class)).mean()),
    }
