"""The Inf-Net toolbox protocol on a slice of four pixels, worked out by hand."""

import math

import numpy as np
import pytest

from nnunet_covid.evaluation.toolbox import as_grey, resized_like, toolbox_scores

# Reference: left column. Foreground greys 204 and 51, background greys 0 and 255. As thresholds fall:
#   205 … 255 (51 of them): only the wrong 255 is predicted          TP 0, FP 1
#    52 … 204 (153):        204 and 255                              TP 1, FP 1
#     1 …  51 (51):         51, 204 and 255                          TP 2, FP 1
#     0       (1):          everything                               TP 2, FP 2
GREY = np.array([[204, 0], [51, 255]], dtype=np.uint8)
REFERENCE = np.array([[True, False], [True, False]])
SHARES = (51, 153, 51, 1)


def mean_over_thresholds(values):
    """Mean of a quantity that takes one value in each of the four ranges of thresholds."""
    return sum(n * v for n, v in zip(SHARES, values, strict=True)) / 256


def test_dice_sensitivity_specificity_and_precision_by_hand():
    scores = toolbox_scores(GREY, REFERENCE)
    assert scores.dice == pytest.approx(mean_over_thresholds((0, 1 / 2, 4 / 5, 2 / 3)))
    assert scores.sensitivity == pytest.approx(mean_over_thresholds((0, 1 / 2, 1, 1)))
    # One of two background pixels is free in the first range, but without a true positive it counts as 0.
    assert scores.specificity == pytest.approx(mean_over_thresholds((0, 1 / 2, 1 / 2, 0)))
    assert scores.precision == pytest.approx(mean_over_thresholds((0, 1 / 2, 2 / 3, 1 / 2)))


def test_mae_by_hand():
    assert toolbox_scores(GREY, REFERENCE).mae == pytest.approx((0.2 + 0 + 0.8 + 1) / 4)


def test_e_measure_by_hand():
    # Alignments ξ = 2ab/(a² + b²) with b = ±1/2 and a = ±share; (1 + ξ)²/4 summed over the four pixels, divided by 3.
    one_predicted = 1 / 26**2 + 2 / 10**2 + (9 / 10) ** 2  # a = 3/4 or −1/4: ξ = −12/13; −4/5 twice; 4/5
    two_predicted = 2  # a = ±1/2: two pixels aligned, two opposed
    three_predicted = 2 * (9 / 10) ** 2 + 1 / 10**2 + (25 / 26) ** 2  # a = 1/4 or −3/4
    all_predicted = 4 / 4  # a = 0: ξ = 0 everywhere
    sums = (one_predicted, two_predicted, three_predicted, all_predicted)
    assert toolbox_scores(GREY, REFERENCE).e_measure == pytest.approx(mean_over_thresholds(sums) / 3)


def test_s_measure_by_hand():
    # The centroid falls between the rows and is rounded to the first: every quadrant is one pixel and agrees fully.
    region = 1.0
    foreground = 2 * 0.5 / (0.25 + 1 + 0.6 / math.sqrt(2))  # greys 0.8 and 0.2
    background = 2 * 0.5 / (0.25 + 1 + 1 / math.sqrt(2))  # one less the greys: 1 and 0
    expected = 0.5 * (0.5 * foreground + 0.5 * background) + 0.5 * region
    assert toolbox_scores(GREY, REFERENCE).s_measure == pytest.approx(expected)


def test_the_map_is_stretched_before_it_is_scored():
    stretched, narrow = GREY, (GREY // 51 * 10 + 7).astype(np.uint8)  # 47, 7, 17 and 57
    found, expected = toolbox_scores(narrow, REFERENCE), toolbox_scores(stretched, REFERENCE)
    assert (found.mae, found.s_measure) == pytest.approx((expected.mae, expected.s_measure))
    # A grey equal to a threshold on paper may fall to the next one in floating point, as in the toolbox itself.
    assert found.dice == pytest.approx(expected.dice, abs=1 / 256)
    assert found.e_measure == pytest.approx(expected.e_measure, abs=1 / 256)


def test_a_constant_map_is_not_stretched():
    scores = toolbox_scores(np.full((2, 2), 51, dtype=np.uint8), REFERENCE)
    # Everything at the 52 thresholds 0 … 51, nothing above.
    assert scores.sensitivity == pytest.approx(52 / 256)
    assert scores.dice == pytest.approx(52 / 256 * 2 / 3)
    assert scores.specificity == 0
    assert scores.mae == pytest.approx((0.8 + 0.2) / 2)


def test_an_empty_reference_leaves_no_true_positive():
    scores = toolbox_scores(GREY, np.zeros((2, 2), dtype=bool))
    assert (scores.dice, scores.sensitivity, scores.precision, scores.specificity) == (0, 0, 0, 0)


def test_a_map_of_another_size_is_resized_to_the_reference():
    small = np.array([[0, 255], [0, 255]], dtype=np.uint8)
    assert resized_like(small, (2, 2)) is small
    large = resized_like(small, (6, 8))
    assert large.shape == (6, 8)
    assert (large[:, 0] == 0).all()
    assert (large[:, -1] == 255).all()
    reference = np.zeros((6, 8), dtype=bool)
    reference[:, 4:] = True
    assert toolbox_scores(small, reference) == toolbox_scores(large, reference)


def test_probabilities_become_the_nearest_grey():
    np.testing.assert_array_equal(as_grey(np.array([0, 0.5 / 255, 1.51 / 255, 1])), [0, 0, 2, 255])
