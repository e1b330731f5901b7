"""One case from arrays: all label metrics, regions, ignore label, policy, single slices."""

import math

import numpy as np
import pytest

from nnunet_covid.evaluation.confusion import EmptyPolicy
from nnunet_covid.evaluation.labels import scheme_of_labels
from nnunet_covid.evaluation.scores import Settings, score_case
from nnunet_covid.evaluation.surface_distance import surface_distances
from nnunet_covid.geometry import Geometry

LESION = scheme_of_labels({"background": 0, "lesion": 1})


def geometry_of(array, spacing=(5.0, 0.8, 0.7)):
    return Geometry(spacing[-array.ndim :][::-1])


def score(prediction, reference, scheme=LESION, settings=None, **more):
    return score_case("a", prediction, reference, geometry_of(reference), scheme, settings or Settings(), **more)


def blocks():
    """A block and the same block one voxel further along the last axis."""
    reference = np.zeros((4, 6, 8), dtype=np.uint8)
    reference[1:3, 2:5, 2:6] = 1
    return np.roll(reference, 1, 2), reference


def test_all_label_metrics_of_two_shifted_blocks():
    prediction, reference = blocks()
    (result,) = score(prediction, reference)
    assert (result.counts.tp, result.counts.fp, result.counts.fn) == (18, 6, 6)
    expected = {
        "dice": 36 / 48,
        "iou": 18 / 30,
        "sensitivity": 18 / 24,
        "specificity": (192 - 30) / (192 - 24),
        "precision": 18 / 24,
        "hd95": 0.7,
        "nsd": 1.0,
        "label_mae": 12 / 192,
        "reference_volume": 24 * 5 * 0.8 * 0.7 / 1000,
        "predicted_volume": 24 * 5 * 0.8 * 0.7 / 1000,
        "volume_error": 0.0,
    }
    assert result.values == pytest.approx(expected)


def test_the_tolerance_reaches_the_nsd():
    (result,) = score(*blocks(), settings=Settings(tolerance=0.5))
    # Of 24 border voxels (the blocks are two slices thick) 6 stick out on each side.
    assert result.values["nsd"] == pytest.approx(36 / 48)


def test_every_region_is_scored_as_a_union():
    scheme = scheme_of_labels({"background": 0, "whole": [1, 2], "core": 2})
    reference = np.array([[[1, 1, 2, 2, 0, 0]]], dtype=np.uint8)
    prediction = np.array([[[0, 2, 2, 1, 1, 0]]], dtype=np.uint8)
    whole, core = score(prediction, reference, scheme)
    assert whole.values["dice"] == pytest.approx(6 / 8)
    assert core.values["dice"] == pytest.approx(2 / 4)


def test_ignored_voxels_count_nowhere():
    scheme = scheme_of_labels({"background": 0, "lesion": 1, "ignore": 2})
    prediction, reference = blocks()
    reference[:, :, 6:] = 2  # the part of the prediction that sticks out
    (result,) = score(prediction, reference, scheme)
    assert (result.counts.fp, result.counts.total) == (0, 192 - 48)
    assert result.values["predicted_volume"] == pytest.approx(18 * 2.8 / 1000)
    anything = np.where(reference == 2, 1, prediction)
    assert score(anything, reference, scheme)[0].values == result.values


def test_a_single_slice_of_a_volume_has_its_border_in_the_plane():
    reference = np.zeros((1, 30, 30), dtype=np.uint8)
    reference[0, 5:25, 5:25] = 1
    prediction = np.roll(reference, 3, 2)
    (result,) = score(prediction, reference)
    flat = surface_distances(prediction[0] == 1, reference[0] == 1, (0.8, 0.7)).hd95()
    assert result.values["hd95"] == pytest.approx(flat)
    assert result.values["reference_volume"] == pytest.approx(400 * 2.8 / 1000)  # the thickness still counts


@pytest.mark.parametrize(
    ("policy", "empty_reference", "both_empty"),
    [
        (EmptyPolicy.SCORE, 0.0, 1.0),
        (EmptyPolicy.NAN_BOTH, 0.0, math.nan),
        (EmptyPolicy.NAN_REFERENCE, math.nan, math.nan),
    ],
)
def test_the_policy_decides_about_empty_masks(policy, empty_reference, both_empty):
    prediction, reference = blocks()
    nothing = np.zeros_like(reference)
    diagonal = math.hypot(4 * 5.0, 6 * 0.8, 8 * 0.7)
    settings = Settings(empty_policy=policy)

    def scored(p, r):
        (result,) = score(p, r, settings=settings)
        return result

    for_empty_reference, for_both = scored(prediction, nothing), scored(nothing, nothing)
    for_empty_prediction = scored(nothing, reference)
    assert [r.empty for r in (for_empty_reference, for_both, for_empty_prediction)] == [
        "reference",
        "both",
        "prediction",
    ]
    for key in ("dice", "iou", "nsd", "sensitivity", "precision"):
        assert for_empty_reference.values[key] == pytest.approx(empty_reference, nan_ok=True), key
        assert for_both.values[key] == pytest.approx(both_empty, nan_ok=True), key
        assert for_empty_prediction.values[key] == 0.0, key
    assert for_empty_prediction.values["hd95"] == pytest.approx(diagonal)
    assert for_both.values["hd95"] == pytest.approx(math.nan if math.isnan(both_empty) else 0.0, nan_ok=True)
    expected = math.nan if math.isnan(empty_reference) else diagonal
    assert for_empty_reference.values["hd95"] == pytest.approx(expected, nan_ok=True)
    # What is defined without reference foreground keeps its value.
    assert for_empty_reference.values["specificity"] == pytest.approx((192 - 24) / 192)
    assert for_both.values["label_mae"] == 0


def test_maps_add_their_metrics():
    prediction, reference = blocks()
    (result,) = score(prediction, reference, maps={"lesion": prediction.astype(np.float32)})
    assert result.values["map_mae"] == pytest.approx(result.values["label_mae"])
    assert "toolbox_dice" in result.values


def test_unequal_shapes_are_refused():
    prediction, reference = blocks()
    with pytest.raises(ValueError, match="differ in shape"):
        score(prediction[:2], reference)
