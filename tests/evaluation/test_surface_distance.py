"""HD95 and NSD: known answers, properties, empty masks, ignored voxels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_covid.evaluation.surface_distance import hausdorff_95, normalised_surface_dice, surface_distances

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
    assert hausdorff_95(prediction, reference, (1.0, 1.0)) == 0.0
    prediction[1, 104:120] = True  # now 20 of 120: rank 0.95 · 119 = 113.05 from below lies between 14 and 15
    assert hausdorff_95(prediction, reference, (1.0, 1.0)) == pytest.approx(14.05)
    assert surface_distances(prediction, reference, (1.0, 1.0)).hausdorff() == 20.0


def test_voxels_exactly_at_the_tolerance_are_within_it():
    prediction, reference = np.zeros((5, 5), dtype=bool), np.zeros((5, 5), dtype=bool)
    prediction[0, 0], reference[3, 0] = True, True
    assert 0.1 * 3 > 0.3  # why the comparison needs a hair of slack
    assert normalised_surface_dice(prediction, reference, (0.1, 0.1), tolerance=0.3) == 1.0
    assert normalised_surface_dice(prediction, reference, (0.1, 0.1), tolerance=0.299999) == 0.0


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
    assert 0 <= distances.hd95() <= distances.hausdorff() <= diagonal * (1 + 1e-12)
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
