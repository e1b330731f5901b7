"""Planes at a time give what the whole gives, to the last bit, and are asked for only where they do."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_covid.nnunet import resampling
from nnunet_covid.nnunet.resampling import InParts

SETTINGS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def configuration(monkeypatch: pytest.MonkeyPatch) -> tuple[InParts, list[tuple[int, ...]]]:
    """A configuration with nnU-Net's default resampling, and the shapes that this has been given."""
    given: list[tuple[int, ...]] = []

    def counted(data: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(data.shape)
        return resample_data_or_seg_to_shape(data, *args, **kwargs)

    monkeypatch.setattr(resampling, "resample_data_or_seg_to_shape", counted)
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 2 * 30 * 20)
    for name, settings in (("data", SETTINGS), ("seg", {**SETTINGS, "is_seg": True, "order": 1})):
        whole = property(lambda _, s=settings: partial(counted, **s))
        monkeypatch.setattr(ConfigurationManager, f"resampling_fn_{name}", whole)
    return InParts({"architecture": {}}), given


@pytest.mark.parametrize(
    ("spacing", "wanted", "shape", "parts"),
    [
        ((5.0, 1.0, 1.0), (5.0, 2.0, 2.0), (7, 15, 10), 4),  # thick slices, their number stays
        ((1.0, 5.0, 1.0), (1.0, 5.0, 2.0), (7, 30, 10), 1),  # another axis is the coarse one
        ((5.0, 1.0, 1.0), (2.5, 2.0, 2.0), (14, 15, 10), 1),  # slices between the slices
        ((1.0, 1.0, 1.0), (1.0, 2.0, 2.0), (7, 15, 10), 1),  # one spline through all axes
    ],
)
def test_parts_are_the_whole(spacing, wanted, shape, parts, monkeypatch):
    lean, given = configuration(monkeypatch)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 7, 30, 20)).astype(np.float32)
    mask = rng.integers(-1, 2, size=(1, 7, 30, 20)).astype(np.int8)
    for data, resample, settings in (
        (image, lean.resampling_fn_data, SETTINGS),
        (mask, lean.resampling_fn_seg, {**SETTINGS, "is_seg": True, "order": 1}),
    ):
        given.clear()
        found = resample(data, shape, spacing, wanted)
        assert len(given) == parts
        expected = resample_data_or_seg_to_shape(data, shape, spacing, wanted, **settings)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_another_resampling_sees_the_whole(monkeypatch):
    lean, _ = configuration(monkeypatch)
    other = partial(np.copy)
    monkeypatch.setattr(ConfigurationManager, "resampling_fn_data", property(lambda _: other))
    assert lean.resampling_fn_data is other
