"""Moments, quadrants, S-measure, E-measure and map error: special cases and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_covid.evaluation.map_metrics import (
    centroid_split,
    grey_histogram,
    map_mae,
    mean_e_measure,
    moments_of_each,
    moments_of_values,
    s_measure,
    sweep_of_map,
)
from nnunet_covid.evaluation.toolbox import map_scores, slice_scores

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


@st.composite
def slices(draw):
    """An 8-bit map and a reference."""
    shape = draw(SHAPES)
    return draw(arrays(np.uint8, shape)), draw(arrays(bool, shape))


@given(arrays(np.float64, st.integers(0, 12), elements=st.floats(0, 1)), st.integers(0, 12))
def test_moments_of_parts_join_to_those_of_the_whole(values, cut):
    joined = moments_of_values(values[:cut]).joined(moments_of_values(values[cut:]))
    assert joined.n == len(values)
    if len(values):
        assert joined.mean == pytest.approx(values.mean(), abs=1e-12)
        assert joined.m2 == pytest.approx(((values - values.mean()) ** 2).sum(), abs=1e-12)


@given(st.integers(1, 500), st.integers(0, 255))
def test_a_constant_has_a_variance_of_exactly_zero(n, grey):
    counts = np.bincount([grey] * n, minlength=256)
    of_counts, of_values = moments_of_each(counts[None])[0], moments_of_values(np.full(n, grey / 255))
    assert of_counts.m2 == of_values.m2 == 0.0
    assert of_counts.joined(of_counts).m2 == 0.0
    assert of_counts.mean == grey


def test_the_cut_runs_behind_the_rounded_centroid():
    reference = np.zeros((10, 10), dtype=bool)
    reference[2:5, 6] = True
    assert centroid_split(reference) == (4, 7)
    assert centroid_split(np.zeros((10, 6), dtype=bool)) == (6, 4)


@given(slices())
def test_scores_of_grey_values_equal_those_of_the_same_floats(case):
    grey, reference = case
    from_grey, from_floats = slice_scores(grey, reference), slice_scores(grey / 255, reference)
    assert from_grey == pytest.approx(from_floats, abs=1e-9)


@given(slices())
def test_all_map_scores_lie_in_the_unit_interval(case):
    for key, value in slice_scores(*case).items():
        # The toolbox divides the E-measure by one pixel less than there are.
        highest = case[0].size / max(case[0].size - 1, 1) if key == "toolbox_e_measure" else 1
        assert -1e-12 <= value <= highest + 1e-12, key


@given(slices(), st.integers(0, 1))
def test_e_measure_and_error_are_invariant_to_flips(case, axis):
    grey, reference = case
    before, after = slice_scores(grey, reference), slice_scores(np.flip(grey, axis), np.flip(reference, axis))
    # The S-measure is not: its cut gives the centroid's own row and column to the upper left.
    for key in ("mean_e_measure", "map_mae", "toolbox_dice", "toolbox_e_measure", "toolbox_mae"):
        assert after[key] == pytest.approx(before[key], abs=1e-12)


@given(slices())
def test_all_map_scores_are_invariant_to_transposition(case):
    grey, reference = case
    assert slice_scores(grey.T, reference.T) == pytest.approx(slice_scores(grey, reference), abs=1e-12)


def test_a_perfect_map_scores_one_and_its_inverse_is_worse_than_noise():
    reference = np.zeros((20, 30), dtype=bool)
    reference[5:12, 8:20] = True
    perfect = reference.astype(np.float64)
    noise = np.random.default_rng(0).random(reference.shape)
    assert s_measure(perfect, reference) == pytest.approx(1)
    assert map_mae(perfect, reference) == 0
    # At the threshold 0 everything is predicted: one of 256 terms is 1/4.
    assert mean_e_measure(perfect, reference) == pytest.approx((255 + 0.25) / 256)
    assert s_measure(1 - perfect, reference) < s_measure(noise, reference) < 1


@pytest.mark.parametrize(("reference_value", "expected"), [(False, 0.75), (True, 0.25)])
def test_references_without_foreground_or_background_have_their_own_formula(reference_value, expected):
    reference = np.full((4, 4), reference_value)
    probability = np.full((4, 4), 0.25)
    assert s_measure(probability, reference) == pytest.approx(expected)
    # Predicted in full at the 64 thresholds 0 … 63/255 ≤ 0.25, not at all at the others.
    share = 64 / 256
    assert mean_e_measure(probability, reference) == pytest.approx(share if reference_value else 1 - share)


def test_a_constant_map_over_a_constant_quadrant_is_not_upset_by_rounding():
    reference = np.zeros((30, 30), dtype=bool)
    reference[3, 4] = True  # three quadrants hold no reference
    probability = np.full((30, 30), 77 / 255)
    scores = [s_measure(p, reference) for p in (probability, probability.astype(np.float32))]
    grey = slice_scores(np.full((30, 30), 77, dtype=np.uint8), reference)["s_measure"]
    assert scores == pytest.approx([grey, grey], abs=1e-6)


@given(slices())
def test_a_sweep_counts_what_thresholding_would(case):
    grey, reference = case
    sweep = sweep_of_map(grey / 255, reference)
    for position, threshold in ((0, 255), (51, 204), (204, 51), (255, 0)):
        predicted = grey >= threshold
        assert sweep.tp[position] == np.count_nonzero(predicted & reference)
        assert sweep.fp[position] == np.count_nonzero(predicted & ~reference)


def test_a_volume_scores_the_mean_of_its_slices():
    rng = np.random.default_rng(1)
    probability, reference = rng.random((3, 8, 9)), rng.random((3, 8, 9)) < 0.3
    expected = [slice_scores(p, r) for p, r in zip(probability, reference, strict=True)]
    for key, value in map_scores(probability, reference).items():
        assert value == pytest.approx(np.mean([s[key] for s in expected])), key


def test_ignored_voxels_leave_the_error_and_do_not_change_the_others():
    rng = np.random.default_rng(2)
    probability, reference = rng.random((10, 10)), rng.random((10, 10)) < 0.3
    ignored = np.zeros((10, 10), dtype=bool)
    ignored[:, 7:] = True
    scores = map_scores(probability, reference, ignored)
    changed = map_scores(np.where(ignored, 0.9, probability), reference | ignored, ignored)
    assert scores == pytest.approx(changed)
    assert scores["map_mae"] == pytest.approx(map_mae(probability[~ignored], reference[~ignored]))
    assert scores["map_mae"] == pytest.approx(map_mae(probability[:, :7], reference[:, :7]))


@pytest.mark.parametrize("function", [s_measure, mean_e_measure, map_mae, map_scores])
def test_unequal_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"differ in shape|of one shape"):
        function(np.zeros((3, 4)), np.zeros((4, 3), dtype=bool))


def test_volumes_have_no_histogram():
    with pytest.raises(ValueError, match="two slices"):
        grey_histogram(np.zeros((2, 3, 4), dtype=np.uint8), np.zeros((2, 3, 4), dtype=bool))
