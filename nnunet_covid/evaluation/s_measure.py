"""The structure measure of Fan et al., ICCV 2017."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.grey_histogram import check_slice
from nnunet_covid.evaluation.moments import NO_VALUES, Moments, moments_of_values
from nnunet_covid.evaluation.quadrants import quadrants

ALPHA = 0.5  # §4.1 of the paper
EPSILON = float(np.spacing(1))  # MATLAB's eps, which the authors' code adds to denominators


def s_measure(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> float:
    """S = max(0, α·S_object + (1 − α)·S_region), α = 0.5; see :func:`s_measure_of_moments`.

    Args:
        probability: map with values in [0, 1], shape (rows, columns).
        reference: mask of the same shape.

    Raises:
        ValueError: if the arrays are not 2D or differ in shape.
    """
    check_slice(probability, reference)
    cells = []
    for quadrant in quadrants(reference):
        values, foreground = probability[quadrant], reference[quadrant]
        cells.append((moments_of_values(values[~foreground]), moments_of_values(values[foreground])))
    return s_measure_of_moments(cells)


def s_measure_of_moments(cells: Sequence[tuple[Moments, Moments]]) -> float:
    """S-measure from the moments of the map on background and foreground of each of the four quadrants.

    Special cases of the paper: a reference without foreground gives 1 − mean(map), one without background
    mean(map).
    """
    background, foreground = NO_VALUES, NO_VALUES
    for cell_background, cell_foreground in cells:
        background, foreground = background.joined(cell_background), foreground.joined(cell_foreground)
    if not foreground.n:
        return 1.0 - background.mean
    if not background.n:
        return foreground.mean
    share = foreground.n / (foreground.n + background.n)
    object_score = share * _object_similarity(foreground)
    object_score += (1 - share) * _object_similarity(background.mirrored())
    total = foreground.n + background.n
    region_score = sum((b.n + f.n) / total * _structural_similarity(b, f) for b, f in cells)
    return max(0.0, ALPHA * object_score + (1 - ALPHA) * region_score)


def _object_similarity(values: Moments) -> float:
    """2·x̄ / (x̄² + 1 + σ), eq. (4) and (5) with the weight of the spread that the authors' code uses."""
    return 2 * values.mean / (values.mean**2 + 1 + values.standard_deviation() + EPSILON)


def _structural_similarity(background: Moments, foreground: Moments) -> float:
    """4·x̄·ȳ·σ_xy / ((x̄² + ȳ²)·(σ_x² + σ_y²)) of one quadrant, x the map and y the reference.

    1 where numerator and denominator vanish, 0 where only the numerator does.
    """
    both = background.joined(foreground)
    if not both.n:
        return 0.0  # an empty quadrant has weight 0
    degrees = both.n - 1 + EPSILON
    mean_y = foreground.n / both.n
    mixed = background.n * foreground.n / both.n
    variance_x = both.m2 / degrees
    variance_y = mixed / degrees
    covariance = mixed * (foreground.mean - background.mean) / degrees
    numerator = 4 * both.mean * mean_y * covariance
    denominator = (both.mean**2 + mean_y**2) * (variance_x + variance_y)
    if numerator != 0:
        return numerator / (denominator + EPSILON)
    return 1.0 if denominator == 0 else 0.0
