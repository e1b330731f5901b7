"""The table of near pixels against a search tree, which knows nothing of it."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from nnunet_covid.evaluation.near_pixels import NEAREST_BIT, NOTHING, near_distances
from nnunet_covid.evaluation.surface_distance import surface_distances


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
