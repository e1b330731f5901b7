"""Counts and the overlap metrics made of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_covid.evaluation import confusion
from nnunet_covid.evaluation.confusion import ConfusionCounts, confusion_counts

PREDICTION = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
REFERENCE = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)


def test_counts_of_a_case_counted_by_hand():
    assert confusion_counts(PREDICTION, REFERENCE) == ConfusionCounts(tp=2, fp=1, fn=2, tn=3)


def test_ignored_voxels_are_in_no_count():
    valid = np.ones_like(PREDICTION)
    valid[0, 0] = valid[1, 0] = valid[1, 3] = False  # a TP, an FN and a TN
    counts = confusion_counts(PREDICTION, REFERENCE, valid)
    assert counts == ConfusionCounts(tp=1, fp=1, fn=1, tn=2)
    assert counts.total == 5


def test_ratios_of_a_case_computed_by_hand():
    counts = ConfusionCounts(tp=2, fp=1, fn=2, tn=3)
    assert confusion.dice(counts) == pytest.approx(4 / 7)
    assert confusion.iou(counts) == pytest.approx(2 / 5)
    assert confusion.sensitivity(counts) == pytest.approx(2 / 4)
    assert confusion.specificity(counts) == pytest.approx(3 / 4)
    assert confusion.precision(counts) == pytest.approx(2 / 3)
    assert confusion.label_mae(counts) == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (ConfusionCounts(0, 0, 0, 9), (1, 1, 1, 1, 1)),  # both empty
        (ConfusionCounts(0, 4, 0, 5), (0, 0, 0, 5 / 9, 0)),  # reference empty
        (ConfusionCounts(0, 0, 4, 5), (0, 0, 0, 1, 0)),  # prediction empty
        (ConfusionCounts(9, 0, 0, 0), (1, 1, 1, 1, 1)),  # both full
        (ConfusionCounts(4, 0, 5, 0), (8 / 13, 4 / 9, 4 / 9, 0, 1)),  # reference full
    ],
)
def test_undefined_ratios_follow_the_stated_policy(counts, expected):
    functions = (confusion.dice, confusion.iou, confusion.sensitivity, confusion.specificity, confusion.precision)
    assert [f(counts) for f in functions] == pytest.approx(list(expected))


@given(st.builds(ConfusionCounts, *[st.integers(0, 10**10)] * 4))
def test_ratios_lie_in_the_unit_interval_and_dice_follows_from_iou(counts):
    for ratio in (confusion.sensitivity, confusion.specificity, confusion.precision, confusion.label_mae):
        assert 0 <= ratio(counts) <= 1
    overlap = confusion.iou(counts)
    assert confusion.dice(counts) == pytest.approx(2 * overlap / (1 + overlap))


def test_masks_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_counts(PREDICTION, REFERENCE[:1])
