"""The trust module (SSA-Net, eq. 9) on label maps small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_covid.semi_supervised.labelling import Heads

# four voxels: sure background, sure class 1, doubtful class 1, doubtful background; columns are voxels
SOFTMAX = np.array([[0.98, 0.01, 0.10, 0.60], [0.01, 0.97, 0.80, 0.30], [0.01, 0.02, 0.10, 0.10]], np.float32)
CLASSES = Heads((0, 1, 2))
REGIONS = Heads((1, 2), regions=True)


def test_labels_below_the_threshold_become_background() -> None:
    label, predicted = CLASSES.trusted(SOFTMAX, [0.95] * 3)
    np.testing.assert_array_equal(predicted, [0, 1, 1, 0])
    np.testing.assert_array_equal(label, [0, 1, 0, 0])


def test_labels_below_the_threshold_become_unknown_background_included() -> None:
    label, _ = CLASSES.trusted(SOFTMAX, [0.95] * 3, untrusted=3)
    np.testing.assert_array_equal(label, [0, 1, 3, 3])


def test_zero_keeps_everything_and_one_nothing() -> None:
    certain = np.array([[0.0, 0.5], [1.0, 0.5]], np.float32)
    for probabilities, heads in ((SOFTMAX, CLASSES), (certain, Heads((0, 1)))):
        eta = [0.0] * len(heads.values)
        label, predicted = heads.trusted(probabilities, eta)
        np.testing.assert_array_equal(label, predicted)
        label, predicted = heads.trusted(probabilities, eta, untrusted=9)
        np.testing.assert_array_equal(label, predicted)
        one = [1.0] * len(heads.values)
        assert not heads.trusted(probabilities, one)[0].any(), "no probability is above one"
        assert (heads.trusted(probabilities, one, untrusted=9)[0] == 9).all()


def test_the_threshold_itself_is_not_enough() -> None:
    probabilities = np.array([[0.25], [0.75]], np.float32)
    assert Heads((0, 1)).trusted(probabilities, [0.75] * 2)[0][0] == 0
    assert Heads((0, 1)).trusted(probabilities, [0.74] * 2)[0][0] == 1


def test_every_class_has_its_own_threshold() -> None:
    probabilities = np.array([[0.1, 0.1], [0.8, 0.1], [0.1, 0.8]], np.float32)
    label, _ = CLASSES.trusted(probabilities, [0.95, 0.7, 0.9])
    np.testing.assert_array_equal(label, [1, 0])


def test_regions_are_drawn_in_order_where_half_and_threshold_are_passed() -> None:
    # whole lesion, consolidation; voxels: both sure, whole sure only, whole doubtful, nothing
    sigmoid = np.array([[0.99, 0.99, 0.70, 0.02], [0.98, 0.40, 0.01, 0.01]], np.float32)
    label, predicted = REGIONS.trusted(sigmoid, [0.95, 0.95])
    np.testing.assert_array_equal(predicted, [2, 1, 1, 0])
    np.testing.assert_array_equal(label, [2, 1, 0, 0])
    np.testing.assert_array_equal(REGIONS.trusted(sigmoid, [0.0, 0.0])[0], predicted)
    assert not REGIONS.trusted(sigmoid, [1.0, 1.0])[0].any()
    unknown, _ = REGIONS.trusted(sigmoid, [0.95, 0.95], untrusted=3)
    np.testing.assert_array_equal(unknown, [2, 3, 3, 0])
    assert (REGIONS.trusted(sigmoid, [1.0, 1.0], untrusted=3)[0] == 3).all()


def test_another_certainty_takes_the_place_of_the_probability() -> None:
    voted = np.array([[1.0, 0.0, 0.0, 0.5], [0.0, 0.75, 1.0, 0.5], [0.0, 0.25, 0.0, 0.0]], np.float32)
    label, predicted = CLASSES.trusted(SOFTMAX, [0.95] * 3, certainty=voted)
    np.testing.assert_array_equal(predicted, [0, 1, 1, 0])
    np.testing.assert_array_equal(label, [0, 0, 1, 0])
    unknown, _ = CLASSES.trusted(SOFTMAX, [0.95] * 3, untrusted=3, certainty=voted)
    np.testing.assert_array_equal(unknown, [0, 3, 1, 3])


def test_another_certainty_of_regions() -> None:
    sigmoid = np.array([[0.7, 0.99, 0.70, 0.4], [0.6, 0.40, 0.01, 0.01]], np.float32)
    voted = np.array([[1.0, 1.0, 0.75, 0.5], [1.0, 0.25, 0.0, 0.0]], np.float32)
    label, predicted = REGIONS.trusted(sigmoid, [0.95] * 2, certainty=voted)
    np.testing.assert_array_equal(predicted, [2, 1, 1, 0])
    np.testing.assert_array_equal(label, [2, 1, 0, 0])
    unknown, _ = REGIONS.trusted(sigmoid, [0.95] * 2, untrusted=3, certainty=voted)
    np.testing.assert_array_equal(unknown, [2, 3, 3, 3])


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, *shape))
    probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    label, predicted = Heads((0, 2, 5)).trusted(probabilities, [0.8] * 3)
    for index in np.ndindex(shape):
        best = int(np.argmax(probabilities[(slice(None), *index)]))
        assert predicted[index] == [0, 2, 5][best]
        assert label[index] == (predicted[index] if probabilities[(best, *index)] > np.float32(0.8) else 0)
