"""All map-based metrics of one class of one case: own definitions and toolbox protocol."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.e_measure import e_measure_curve, mean_e_measure
from nnunet_covid.evaluation.grey_histogram import GREY_VALUES, GreyHistogram, grey_histogram
from nnunet_covid.evaluation.map_error import map_mae
from nnunet_covid.evaluation.s_measure import s_measure, s_measure_of_moments
from nnunet_covid.evaluation.threshold_sweep import threshold_sweep
from nnunet_covid.evaluation.toolbox import as_grey, toolbox_scores_of_histogram

ProbabilityMap = NDArray[np.floating] | NDArray[np.uint8]


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
        ignored: voxels that do not count. The error leaves them out; the structural metrics see background in
        both
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
    toolbox = toolbox_scores_of_histogram(histogram)
    return scores | {f"toolbox_{name}": value for name, value in toolbox.as_dict().items()}


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
