"""Whole numbers, nearly whole ones and fractions in label maps, and images that hold but such values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_covid.label_maps import distinct_values, values_like_labels, whole_numbers


@given(hnp.arrays(np.int16, (3, 4), elements=st.integers(-1, 300)), st.floats(-9e-4, 9e-4))
def test_nearly_whole_numbers_are_rounded(labels: np.ndarray, deviation: float) -> None:
    for kind in (np.float32, np.float64):
        np.testing.assert_array_equal(whole_numbers((labels + deviation).astype(kind)), labels)


@pytest.mark.parametrize(("value", "said"), [(0.9882, r"fractions \(0\.9882\)"), (np.nan, "no finite numbers")])
def test_fractions_are_named(value: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        whole_numbers(np.array([0.0, 1.0, value]))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64])
@pytest.mark.parametrize("largest", [5, 200, 100_000])
def test_distinct_values(kind: type, largest: int) -> None:
    labels = np.random.default_rng(0).integers(0, min(largest, np.iinfo(kind).max), (7, 9)).astype(kind)
    assert distinct_values(labels) == np.unique(labels).tolist()
    assert distinct_values(labels[:0]) == []


def test_images_that_look_like_label_maps() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 4:8] = 255
    noise = np.random.default_rng(0).integers(-1000, 400, (20, 40, 50))
    assert values_like_labels(mask) == [0, 255]
    assert values_like_labels(mask.astype(np.float32)) == [0, 255]
    for image in (noise, np.zeros((4, 4)), mask - 1000.0, mask / 2.0 + 0.25):
        assert values_like_labels(image) == []
    rare = np.zeros((100, 100, 100), np.int16)
    rare[50, 50, :30] = range(30)
    assert values_like_labels(rare) == []
