"""HD95 and NSD: known answers, properties, empty masks, ignored voxels; borders, boxes and near pixels below them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunet_covid.evaluation.surface_distance import (
    NEAREST_BIT,
    NOTHING,
    border_voxels,
    foreground_box,
    near_distances,
    surface_distances,
)

MASKS = arrays(bool, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6))
SPACINGS = st.sampled_from([0.1, 0.3, 0.8, 1.0, 2.5, 5.0])


@st.composite
def cases(draw):
    """Two masks of one shape, and a spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=6))
    masks = draw(arrays(bool, shape)), draw(arrays(bool, shape))
    return *masks, tuple(draw(SPACINGS) for _ in shape)


def shifted_boxes():
    """A cube of 10³ voxels and its copy two voxels further along the first axis."""
    first, second = np.zeros((16, 14, 14), dtype=bool), np.zeros((16, 14, 14), dtype=bool)
    first[2:12, 2:12, 2:12] = True
    second[4:14, 2:12, 2:12] = True
    return first, second


def test_shifted_boxes_with_anisotropic_spacing():
    # Each border has 10³ − 8³ = 488 voxels. Of the 10·10 in the face that sticks out and the 8·8 inside the other box,
    # all lie two planes, 6 mm, away; of the plane between, 36 rim voxels lie one plane, 3 mm, away; the rest coincide.
    prediction, reference = shifted_boxes()
    distances = surface_distances(prediction, reference, (3.0, 10.0, 10.0))
    for directed in (distances.to_reference, distances.to_prediction):
        values, counts = np.unique(directed, return_counts=True)
        np.testing.assert_allclose(values, [0, 3, 6])
        np.testing.assert_array_equal(counts, [488 - 36 - 164, 36, 164])
    assert distances.hd95() == pytest.approx(6.0)
    assert distances.nsd(3.0) == pytest.approx((488 - 164) / 488)
    assert distances.nsd(2.9) == pytest.approx((488 - 164 - 36) / 488)
    assert distances.nsd(6.0) == 1.0


def test_hd95_takes_the_larger_direction_and_forgets_the_outlying_twentieth():
    reference = np.zeros((3, 200), dtype=bool)
    reference[1, :100] = True
    prediction = reference.copy()
    prediction[1, 100:104] = True  # 4 of 104 border voxels, 1 to 4 pixels away
    assert surface_distances(prediction, reference, (1.0, 1.0)).hd95() == 0.0
    prediction[1, 104:120] = True  # now 20 of 120: rank 0.95 · 119 = 113.05 from below lies between 14 and 15
    assert surface_distances(prediction, reference, (1.0, 1.0)).hd95() == pytest.approx(14.05)
    assert surface_distances(prediction, reference, (1.0, 1.0)).to_reference.max() == 20.0


def test_voxels_exactly_at_the_tolerance_are_within_it():
    prediction, reference = np.zeros((5, 5), dtype=bool), np.zeros((5, 5), dtype=bool)
    prediction[0, 0], reference[3, 0] = True, True
    assert 0.1 * 3 > 0.3  # why the comparison needs a hair of slack
    assert surface_distances(prediction, reference, (0.1, 0.1)).nsd(0.3) == 1.0
    assert surface_distances(prediction, reference, (0.1, 0.1)).nsd(0.299999) == 0.0


@pytest.mark.parametrize(("empty_side", "expected"), [("both", 0.0), ("one", math.hypot(5 * 2.0, 7 * 0.5))])
def test_empty_masks_score_zero_or_the_diagonal(empty_side, expected):
    nothing, something = np.zeros((5, 7), dtype=bool), np.zeros((5, 7), dtype=bool)
    something[2, 3] = True
    other = nothing if empty_side == "both" else something
    for first, second in ((nothing, other), (other, nothing)):
        distances = surface_distances(first, second, (2.0, 0.5))
        assert distances.hd95() == pytest.approx(expected)
        assert distances.nsd(3.0) == (1.0 if empty_side == "both" else 0.0)


@given(cases())
def test_both_are_symmetric_in_their_masks(case):
    prediction, reference, spacing = case
    there, back = surface_distances(prediction, reference, spacing), surface_distances(reference, prediction, spacing)
    assert there.hd95() == back.hd95()
    assert there.nsd(0.8) == back.nsd(0.8)


@given(cases())
def test_both_keep_their_bounds(case):
    prediction, reference, spacing = case
    distances = surface_distances(prediction, reference, spacing)
    diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    assert 0 <= distances.hd95() <= diagonal * (1 + 1e-12)
    assert 0 <= distances.nsd(0) <= distances.nsd(0.8) <= distances.nsd(100) <= 1


@given(cases(), st.data())
def test_both_are_invariant_to_flips(case, data):
    prediction, reference, spacing = case
    axis = data.draw(st.integers(0, prediction.ndim - 1))
    before = surface_distances(prediction, reference, spacing)
    after = surface_distances(np.flip(prediction, axis), np.flip(reference, axis), spacing)
    assert after.hd95() == pytest.approx(before.hd95(), rel=1e-12)
    assert after.nsd(0.8) == before.nsd(0.8)


@given(cases(), st.data())
def test_both_are_invariant_to_a_permutation_of_axes_with_their_spacing(case, data):
    prediction, reference, spacing = case
    order = data.draw(st.permutations(range(prediction.ndim)))
    before = surface_distances(prediction, reference, spacing)
    after = surface_distances(prediction.transpose(order), reference.transpose(order), [spacing[i] for i in order])
    assert after.hd95() == pytest.approx(before.hd95(), rel=1e-12)
    assert after.nsd(0.8) == before.nsd(0.8)


@given(cases(), st.sampled_from([0.5, 2.0, 4.0]))
def test_distances_scale_with_the_spacing(case, factor):
    prediction, reference, spacing = case
    before = surface_distances(prediction, reference, spacing)
    after = surface_distances(prediction, reference, [factor * s for s in spacing])
    assert after.hd95() == pytest.approx(factor * before.hd95())


def test_what_happens_in_ignored_voxels_does_not_matter():
    rng = np.random.default_rng(0)
    prediction, reference = rng.random((2, 20, 20)) < 0.4
    ignored = np.zeros((20, 20), dtype=bool)
    ignored[:, 12:] = True
    before = surface_distances(prediction, reference, (1.0, 1.0), ignored)
    changed = np.where(ignored, rng.random((20, 20)) < 0.5, prediction)
    after = surface_distances(changed, reference, (1.0, 1.0), ignored)
    assert (after.hd95(), after.nsd(1.0)) == (before.hd95(), before.nsd(1.0))
    assert before.nsd(1.0) != surface_distances(prediction, reference, (1.0, 1.0)).nsd(1.0)


def test_unequal_shapes_and_spacings_are_refused():
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match="differ in shape"):
        surface_distances(mask, mask[:2], (1.0, 1.0))
    with pytest.raises(ValueError, match="1 spacings for masks of 2 axes"):
        surface_distances(mask, mask, (1.0,))


@given(MASKS)
def test_border_is_the_mask_less_its_erosion(mask):
    np.testing.assert_array_equal(border_voxels(mask), mask & ~ndimage.binary_erosion(mask))


def test_border_of_a_mask_that_is_not_contiguous():
    mask = np.zeros((8, 9, 10), dtype=bool)
    mask[2:6, 1:7, 3:8] = True
    np.testing.assert_array_equal(border_voxels(mask.transpose(2, 0, 1)), border_voxels(mask).transpose(2, 0, 1))


def test_ignored_voxels_make_no_border():
    mask = np.array([[1, 1, 1, 0, 0]] * 3, dtype=bool)
    ignored = np.zeros_like(mask)
    ignored[:, 3] = True
    border = border_voxels(np.pad(mask, 1, mode="edge"), np.pad(ignored, 1, mode="edge"))
    # The last column of the mask meets only unknown voxels; the padding's outside is background still.
    np.testing.assert_array_equal(border[1:-1, 1:-1], np.zeros_like(mask))


def test_border_beside_background_stays_where_others_are_ignored():
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:4, 1:4] = True
    ignored = np.zeros_like(mask)
    ignored[:, 4] = True
    expected = mask.copy()
    expected[2, 2] = expected[2, 3] = False  # inside, and beside unknown voxels only
    np.testing.assert_array_equal(border_voxels(mask, ignored), expected)


@given(MASKS)
def test_box_holds_all_foreground_and_is_the_smallest(mask):
    box = foreground_box(mask)
    if box is None:
        assert not mask.any()
        return
    assert mask[box].sum() == mask.sum()
    for axis in range(mask.ndim):
        inside = np.moveaxis(mask[box], axis, 0)
        assert inside[0].any()
        assert inside[-1].any()


def test_the_table_holds_the_nearest_bit_of_every_window():
    for window in (0b1, 0b1 << 8, 0b1 << 15, 0b1000000010000001, 0xFFFF, 0b0000001000010000):
        bits = [abs(b - 8) for b in range(16) if window >> b & 1]
        assert NEAREST_BIT[window] == min(bits)
    assert NEAREST_BIT[0] == NOTHING


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.0), (5.0, 0.5)])
@pytest.mark.parametrize("share", [0.003, 0.03, 0.3])
def test_distances_said_to_be_sure_are_those_of_a_search_tree(spacing, share):
    rng = np.random.default_rng(0)
    for shape in [(40, 33), (1, 50), (64, 1), (17, 130)]:
        target = rng.random(shape) < share
        target[rng.integers(shape[0]), rng.integers(shape[1])] = True
        pixels = np.arange(target.size)
        expected = cKDTree(np.argwhere(target) * spacing).query(np.argwhere(np.ones(shape)) * spacing)[0]
        distances, sure = near_distances(pixels, target, spacing)
        np.testing.assert_allclose(distances[sure], expected[sure], rtol=1e-12)
        assert sure[expected <= 7 * min(spacing)].all()
        assert not sure[expected > 8 * min(spacing) * (1 + 1e-9)].any()


def test_near_and_far_pixels_of_one_border_are_measured_alike():
    prediction, reference = np.zeros((30, 60), dtype=bool), np.zeros((30, 60), dtype=bool)
    reference[10, 5:8] = True
    prediction[10, 5:50:4] = True  # 0, 2 and then 6, 10, … pixels away from column 7
    distances = surface_distances(prediction, reference, (1.0, 1.0))
    np.testing.assert_allclose(distances.to_reference, np.maximum(np.arange(5, 50, 4) - 7, 0) * (np.arange(12) > 0))
    np.testing.assert_allclose(distances.to_prediction, [0, 1, 2])
