"""The enhanced-alignment measure of Fan et al., IJCAI 2018."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.grey_histogram import check_slice
from nnunet_covid.evaluation.s_measure import EPSILON
from nnunet_covid.evaluation.threshold_sweep import Curve, ThresholdSweep, sweep_of_map


def mean_e_measure(probability: NDArray[np.floating], reference: NDArray[np.bool_], *, less_one: bool = False) -> float:
    """Mean of :func:`e_measure_curve` over 256 thresholds.

    Args:
        probability: map with values in [0, 1], shape (rows, columns).
        reference: mask of the same shape.
        less_one: divide by w·h − 1, as the authors' toolbox does, instead of by w·h.

    Raises:
        ValueError: if the arrays are not 2D or differ in shape.
    """
    check_slice(probability, reference)
    return float(e_measure_curve(sweep_of_map(probability, reference), less_one=less_one).mean())


def e_measure_curve(sweep: ThresholdSweep, *, less_one: bool = False) -> Curve:
    """E-measure of the binarised map at each threshold, shape (256,).

    ``E = 1/(w·h) · Σ (1 + ξ)²/4`` with the alignment ``ξ = 2·a·b / (a² + b²)``, where a and b are prediction
    and reference less their means (eq. 3 to 5). A reference without foreground scores the share of background
    predicted, one without background the share of foreground predicted.

    ξ takes one value for each of TP, FP, FN and TN, so that four counts stand for all pixels.
    """
    foreground, background = sweep.foreground, sweep.background
    size = foreground + background
    predicted = sweep.tp + sweep.fp
    if foreground == 0:
        total = (size - predicted).astype(np.float64)
    elif background == 0:
        total = predicted.astype(np.float64)
    else:
        a_inside, a_outside = 1 - predicted / size, -predicted / size
        b_inside, b_outside = 1 - foreground / size, -foreground / size
        fn, tn = foreground - sweep.tp, background - sweep.fp
        total = sweep.tp * _enhanced(a_inside, b_inside) + sweep.fp * _enhanced(a_inside, b_outside)
        total += fn * _enhanced(a_outside, b_inside) + tn * _enhanced(a_outside, b_outside)
    return total / max(size - 1 if less_one else size, 1)


def _enhanced(a: Curve, b: float) -> Curve:
    """(1 + ξ)²/4 with ξ = 2·a·b / (a² + b²)."""
    alignment = 2 * a * b / (a * a + b * b + EPSILON)
    return (1 + alignment) ** 2 / 4
