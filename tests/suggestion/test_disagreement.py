"""The disagreement of predictions against the definition of mutual information, voxel by voxel in plain Python."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from nnunet_covid.suggestion.disagreement import PARTS, Disagreement


def predictions(*counts: int, regions: bool = False) -> np.ndarray:
    """Probabilities (*counts, 3 heads, 4, 5)."""
    logits = torch.randn((*counts, 3, 4, 5), generator=torch.Generator().manual_seed(len(counts)), dtype=torch.double)
    return (torch.sigmoid(2 * logits) if regions else torch.softmax(2 * logits, -3)).numpy()


def mutual_information(distributions: list[list[float]]) -> float:
    """Between the class and which of these distributions is asked: the mean divergence from their mean, in bits."""
    mean = [sum(values) / len(distributions) for values in zip(*distributions, strict=True)]
    divergences = [sum(p * math.log2(p / q) for p, q in zip(one, mean, strict=True)) for one in distributions]
    return sum(divergences) / len(distributions)


def filled(given: np.ndarray, *, exclusive: bool) -> Disagreement:
    """Of predictions (folds, networks, mirrorings, heads, *spatial)."""
    found = Disagreement(exclusive=exclusive, networks_of_a_fold=given.shape[1])
    for fold, network in product(*map(range, given.shape[:2])):
        found.add(torch.from_numpy(given[fold, network]))
    return found


def test_a_part_is_the_mutual_information_of_one_difference_alone() -> None:
    given = predictions(3, 2, 4)
    parts = filled(given, exclusive=True).parts()
    for y, x in product(range(4), range(5)):
        each = given[..., y, x]
        of_folds = mutual_information(each.mean((1, 2)).tolist())
        of_networks = np.mean([mutual_information(each[f].mean(1).tolist()) for f in range(3)])
        of_mirrorings = np.mean([mutual_information(each[f, n].tolist()) for f in range(3) for n in range(2)])
        expected = dict(zip(PARTS, (of_folds, of_networks, of_mirrorings), strict=True))
        assert {name: float(parts[name][y, x]) for name in PARTS} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("regions", [False, True])
def test_the_parts_add_up_to_the_whole(regions: bool) -> None:
    given = predictions(3, 2, 4, regions=regions)
    parts = filled(given, exclusive=not regions).parts()
    for y, x in product(range(4), range(5)):
        each = given[..., y, x].reshape(-1, 3)
        if regions:  # each head is a question of its own with the answers yes and no
            whole = np.mean([mutual_information([[p, 1 - p] for p in head]) for head in each.T])
        else:
            whole = mutual_information(each.tolist())
        assert sum(float(parts[name][y, x]) for name in PARTS) == pytest.approx(whole, abs=1e-9)


def test_predictions_that_agree_on_being_unsure_do_not_disagree() -> None:
    unsure = np.full((2, 1, 4, 2, 3, 3), 0.5)
    assert all(not part.any() for part in filled(unsure, exclusive=True).parts().values())


def test_opposite_certainties_are_one_bit() -> None:
    opposite = np.zeros((2, 1, 1, 2, 3, 3))
    opposite[0, :, :, 0] = opposite[1, :, :, 1] = 1
    found = filled(opposite, exclusive=True)
    assert torch.allclose(found.parts()["folds"], torch.ones(3, 3, dtype=torch.double))
    assert torch.allclose(found.mean, torch.full((2, 3, 3), 0.5, dtype=torch.double))
