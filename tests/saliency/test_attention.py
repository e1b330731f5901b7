"""The attention maps equal equation (2) of SSA-Net, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import resize

from nnunet_covid.saliency.attention import resized, spatial_softmax


@pytest.mark.parametrize(("size", "target"), [((3, 5), (7, 11)), ((2, 3, 4), (5, 6, 4))])
def test_maps_are_interpolated_between_voxel_centres(size: tuple[int, ...], target: tuple[int, ...]) -> None:
    maps = torch.randn((1, 2, *size), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(resized(maps, target), resize(maps.numpy(), target), atol=1e-12)


def test_softmax_runs_over_all_positions_that_count() -> None:
    activation = np.random.default_rng(0).normal(0, 2, (3, 4, 5)).astype(np.float32)
    inside = np.ones((3, 4, 5), bool)
    inside[:, :, 3:] = False
    result = spatial_softmax(activation, inside)
    assert not result[~inside].any()
    total = sum(np.exp(float(value)) for value in activation[inside])
    np.testing.assert_allclose(result[inside], np.exp(activation[inside].astype(float)) / total, rtol=1e-6)


def test_huge_activations_do_not_overflow() -> None:
    activation = np.array([[9e4, 9e4], [0.0, 1e3]], np.float32)
    np.testing.assert_allclose(spatial_softmax(activation), [[0.5, 0.5], [0, 0]], atol=1e-12)
