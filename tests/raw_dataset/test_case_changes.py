"""Window, crop, slices and label tables on small arrays with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_covid.geometry import Geometry
from nnunet_covid.raw_dataset import SliceSelection, UnusableFile
from nnunet_covid.raw_dataset.classes import map_colours, map_values
from nnunet_covid.raw_dataset.scan import (
    Scan,
    crop_around_lungs,
    extract_slices,
    from_8_bit,
    selected_indices,
    to_8_bit,
)

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def test_window_ends_and_middle() -> None:
    values = np.array([-3000, -1250, -500, 250, 3000], dtype=np.int16)
    np.testing.assert_array_equal(to_8_bit(values, -1250, 250), [0, 0, 128, 255, 255])


def test_window_and_back_keeps_every_grey_value() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_8_bit(from_8_bit(values, -1250, 250), -1250, 250), values)


def scan_with_lungs(shape: tuple[int, int, int], box: tuple[slice, slice, slice]) -> Scan:
    lungs = np.zeros(shape, dtype=bool)
    lungs[box] = True
    image = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Scan(image, lungs.astype(np.uint8), lungs, Geometry((0.5, 2.0, 3.0), (10.0, 20.0, 30.0), UPRIGHT))


def test_crop_is_centred_on_the_lungs_and_moves_the_origin() -> None:
    scan = scan_with_lungs((2, 20, 30), (slice(0, 2), slice(8, 13), slice(15, 20)))  # centre y 10, x 17
    cropped = crop_around_lungs(scan, 7, 5)
    np.testing.assert_array_equal(cropped.image, scan.image[:, 7:14, 15:20])
    assert cropped.geometry is not None
    assert cropped.geometry.origin == (10 + 15 * 0.5, 20 + 7 * 2.0, 30)
    assert cropped.label is not None
    np.testing.assert_array_equal(cropped.label, scan.image[:, 7:14, 15:20] * 0 + cropped.lungs)


def test_crop_stays_inside_and_never_enlarges() -> None:
    scan = scan_with_lungs((1, 20, 30), (slice(0, 1), slice(0, 2), slice(28, 30)))
    np.testing.assert_array_equal(crop_around_lungs(scan, 10, 10).image, scan.image[:, :10, 20:])
    assert crop_around_lungs(scan, 512, 8).image.shape == (1, 20, 8)


def test_without_lungs_the_crop_is_central() -> None:
    scan = scan_with_lungs((1, 20, 30), (slice(0, 0), slice(0, 0), slice(0, 0)))
    np.testing.assert_array_equal(crop_around_lungs(scan, 10, 10).image, scan.image[:, 5:15, 10:20])


def test_slices_are_cut_along_the_body_whatever_the_axes() -> None:
    image = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    # the y axis of the file (array axis 1) runs head to foot
    coronal = Geometry((0.5, 3.0, 0.7), (0.0, 0.0, 0.0), (1, 0, 0, 0, 0, 1, 0, 1, 0))
    pieces = extract_slices(Scan(image, geometry=coronal), "case", SliceSelection(), [1])
    assert list(pieces) == [f"case_{i:03d}" for i in range(5)]
    np.testing.assert_array_equal(pieces["case_002"].image, image[:, 2, :])
    geometry = pieces["case_002"].geometry
    assert geometry is not None
    assert geometry.spacing == (0.5, 0.7)


def test_selection_by_lesion_step_and_number() -> None:
    lesion = [False, True, True, False, True, True, True]
    assert selected_indices(lesion, "a", SliceSelection()) == list(range(7))
    assert selected_indices(lesion, "a", SliceSelection(only_with_lesion=True)) == [1, 2, 4, 5, 6]
    assert selected_indices(lesion, "a", SliceSelection(only_with_lesion=True, every=2)) == [1, 4, 6]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5))
def test_a_draw_is_repeatable_and_within_bounds(count: int, at_most: int, seed: int) -> None:
    selection = SliceSelection(at_most=at_most, seed=seed)
    drawn = selected_indices([True] * count, "case", selection)
    assert drawn == selected_indices([True] * count, "case", selection)
    assert len(drawn) == len(set(drawn)) == min(count, at_most)
    assert drawn == sorted(drawn)
    assert set(drawn) <= set(range(count))


def test_draws_differ_between_cases_and_seeds() -> None:
    draws = {
        tuple(selected_indices([True] * 100, name, SliceSelection(at_most=5, seed=seed)))
        for name in ("a", "b")
        for seed in (1, 2)
    }
    assert len(draws) == 4


def test_unlabelled_volumes_keep_all_slices() -> None:
    scan = Scan(np.zeros((3, 4, 4)))
    assert len(extract_slices(scan, "case", SliceSelection(only_with_lesion=True), [1])) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.int64])
def test_values_map_by_table_in_any_type(dtype: type) -> None:
    values = np.array([[0, 255], [7, 0]]).astype(dtype)
    np.testing.assert_array_equal(map_values(values, {0: 0, 7: 2, 255: 1}, Path("m")), [[0, 1], [2, 0]])


@pytest.mark.parametrize("value", [-1, 3, 254])
def test_values_outside_the_table_are_named(value: int) -> None:
    with pytest.raises(UnusableFile) as e:
        map_values(np.array([0, 255, value]), {0: 0, 255: 1}, Path("m"))
    assert f"({value}; allowed: 0, 255)" in e.value.reason


def test_fractions_are_no_labels() -> None:
    with pytest.raises(UnusableFile, match=r"0\.5"):
        map_values(np.array([0, 0.5, 1]), {0: 0, 1: 1}, Path("m"))


COLOURS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2}


@given(st.sampled_from(list(COLOURS)), st.lists(st.integers(-20, 20), min_size=3, max_size=3))
def test_noisy_colours_snap_to_their_class(colour: tuple[int, int, int], noise: list[int]) -> None:
    pixel = np.array([[[*np.clip(np.add(colour, noise), 0, 255), 255]]], dtype=np.uint8)
    classes, snapped = map_colours(pixel, COLOURS, Path("m"))
    assert classes.tolist() == [[COLOURS[colour]]]
    assert snapped == int(tuple(pixel[0, 0, :3].tolist()) != colour)


@pytest.mark.parametrize("colour", [(64, 0, 0), (64, 64, 0), (0, 0, 128), (255, 255, 255)])
def test_colours_between_classes_fail(colour: tuple[int, int, int]) -> None:
    with pytest.raises(UnusableFile, match="match no colour"):
        map_colours(np.array([[colour]], dtype=np.uint8), COLOURS, Path("m"))
