"""The re-weighted cross entropy equals eq. (8) of SSA-Net, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_covid.losses.reweighted_cross_entropy import (
    ReweightedCrossEntropy,
    class_weights,
    reweighted_cross_entropy,
)

COUNTS = [900, 70, 30]


def naive_loss(logits: np.ndarray, labels: np.ndarray, counts: list[int], ignore: int | None) -> float:
    """Eq. (8) with the sign that makes it a loss."""
    total, number = 0.0, 0
    classes = len(counts)
    for index in np.ndindex(*labels.shape):
        label = int(labels[index])
        if label == ignore:
            continue
        scores = logits[(index[0], slice(None), *index[1:])]
        probability = np.exp(scores - scores.max())
        probability /= probability.sum()
        share = counts[label] / sum(counts)
        total -= np.log(probability[label]) / (classes * share)
        number += 1
    return total / number if number else 0.0


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 2), (1, 6)])
@pytest.mark.parametrize("ignore", [None, 3])
def test_the_loss_equals_equation_8(size: tuple[int, ...], ignore: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4 if ignore else 3, (2, 1, *size), generator=generator)
    expected = naive_loss(logits.numpy(), labels[:, 0].numpy(), COUNTS, ignore)
    weights = 1 / (3 * torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS))
    assert reweighted_cross_entropy(logits, labels, weights, ignore).item() == pytest.approx(expected, rel=1e-6)
    module = ReweightedCrossEntropy(ignore)
    module.set_counts(COUNTS)
    assert module(logits, labels.short()).item() == pytest.approx(expected, rel=1e-6)


def test_rare_classes_weigh_more_than_one_and_an_average_voxel_one() -> None:
    weights = class_weights(COUNTS)
    assert weights.tolist() == pytest.approx([1 / 2.7, 1 / 0.21, 1 / 0.09])
    assert weights[0] < 1 < weights[1] < weights[2]
    assert weights[0] > 0
    assert (weights * torch.tensor(COUNTS)).sum().item() == pytest.approx(sum(COUNTS))


def test_gradients_match_finite_differences_and_vanish_where_ignored() -> None:
    logits = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 1, 2], [1, 2, 0], [2, 0, 1]]])
    weights = class_weights([8, 2]).double()
    assert torch.autograd.gradcheck(lambda x: reweighted_cross_entropy(x, labels, weights, 2), logits)
    reweighted_cross_entropy(logits, labels, weights, 2).backward()
    moved = logits.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, labels != 2)


def test_a_batch_of_ignored_voxels_costs_nothing() -> None:
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = reweighted_cross_entropy(logits, torch.full((1, 2, 2), 2), class_weights([1, 1]), 2)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_a_missing_class_is_named() -> None:
    with pytest.raises(ValueError, match="no voxel of class 1, 3"):
        class_weights([5, 0, 2, 0])


def test_the_loss_refuses_to_guess_the_shares() -> None:
    with pytest.raises(RuntimeError, match="set_counts"):
        ReweightedCrossEntropy()(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))


def test_new_counts_change_the_weights() -> None:
    module = ReweightedCrossEntropy()
    module.set_counts([9, 1])
    before = module.weights.clone()
    module.set_counts([8, 2])
    assert module.weights[1] == before[1] / 2
