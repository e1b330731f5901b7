"""Border voxels and boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from nnunet_covid.evaluation import borders
from nnunet_covid.evaluation.borders import border_voxels, common_box, flat_indices, foreground_box

MASKS = arrays(bool, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6))


@given(MASKS)
def test_border_is_the_mask_less_its_erosion(mask):
    np.testing.assert_array_equal(border_voxels(mask), mask & ~ndimage.binary_erosion(mask))


@given(MASKS, st.integers(1, 40))
def test_border_does_not_depend_on_the_slabs(mask, slab):
    whole = border_voxels(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(borders, "SLAB_VOXELS", slab)
        np.testing.assert_array_equal(border_voxels(mask), whole)


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


def test_common_box_spans_both_masks():
    first, second = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    first[2, 3], second[6, 1] = True, True
    assert common_box(first, second) == (slice(2, 7), slice(1, 4))
    assert common_box(first, np.zeros_like(first)) == (slice(2, 3), slice(3, 4))
    assert common_box(np.zeros_like(first)) is None


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 5), (4, 8), (5, 7, 9)])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_flat_indices_are_those_of_numpy(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    np.testing.assert_array_equal(flat_indices(mask), np.flatnonzero(mask))
