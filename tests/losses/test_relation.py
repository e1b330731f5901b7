"""Relation matrices and losses against their definitions, written out with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_covid.losses.relation import (
    general_relation_loss,
    mean_feature,
    ramp_up,
    relation_matrix,
    target_relation_loss,
)


def naive_relation_matrix(features: np.ndarray) -> np.ndarray:
    """Eqs. (1) and (2), one entry at a time."""
    batch, channels = features.shape[:2]
    a = sum(features[b].reshape(channels, -1) for b in range(batch)) / batch
    gram = np.zeros((channels, channels))
    for m in range(channels):
        for n in range(channels):
            gram[m, n] = sum(x * y for x, y in zip(a[m], a[n], strict=True))
    return np.stack([row / math.sqrt(sum(v * v for v in row)) for row in gram])


def naive_distance(a: np.ndarray, b: np.ndarray) -> float:
    return sum((a[i, j] - b[i, j]) ** 2 for i in range(len(a)) for j in range(len(a)))


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 4, 3, 2, 5)])
def test_the_relation_matrix_is_that_of_the_equations(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = relation_matrix(mean_feature(features))
    np.testing.assert_allclose(found, naive_relation_matrix(features.double().numpy()), atol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(shape[1]))


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("rows", 6), ("mean", 36)])
def test_losses_are_those_of_the_equations(reduction: str, divisor: int) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (relation_matrix(torch.randn(6, 4, 4, generator=generator)) for _ in range(2))
    expected = naive_distance(a.numpy(), b.numpy()) / divisor
    assert general_relation_loss(a, b, reduction).item() == pytest.approx(expected, rel=1e-5)
    assert target_relation_loss(a, b, reduction).item() == pytest.approx(-expected, rel=1e-5)


def test_the_target_loss_sends_nothing_back_to_the_general_matrix() -> None:
    general, target = (torch.randn(4, 4, requires_grad=True) for _ in range(2))
    target_relation_loss(general, target).backward()
    assert general.grad is None
    assert target.grad.abs().sum() > 0


def test_the_general_loss_reaches_both_of_its_matrices() -> None:
    other, covid = (torch.randn(4, 4, requires_grad=True) for _ in range(2))
    general_relation_loss(other, covid).backward()
    torch.testing.assert_close(other.grad, -covid.grad)
    assert other.grad.abs().sum() > 0


def test_float32_inside_autocast() -> None:
    features = 300 * torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(2))
    outside = relation_matrix(mean_feature(features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = relation_matrix(mean_feature(features))
        half = relation_matrix(mean_feature(features.to(torch.float16)))
    assert inside.dtype == half.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert torch.isfinite(half).all()  # the Gram matrix itself is beyond float16's 65504
    torch.testing.assert_close(half, outside, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dead", [[2], [0, 1, 2, 3, 4]])
def test_dead_channels_give_zero_rows_and_finite_gradients(dead: list[int]) -> None:
    features = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(3))
    features[:, dead] = 0
    features.requires_grad_()
    matrix = relation_matrix(mean_feature(features))
    alive = [c for c in range(5) if c not in dead]
    assert matrix[dead].abs().sum() == 0
    torch.testing.assert_close(matrix[alive].norm(dim=1), torch.ones(len(alive)))
    general_relation_loss(torch.rand(5, 5), matrix).backward()
    assert torch.isfinite(features.grad).all()
    assert features.grad.abs().max() < 10


def test_the_scale_of_the_features_does_not_matter() -> None:
    feature = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(4))
    for scale in (1e-6, 1e6):
        torch.testing.assert_close(relation_matrix(scale * feature), relation_matrix(feature))


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randn(2, 3, 3, 3, generator=generator) for _ in range(2))
    a.requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return general_relation_loss(relation_matrix(mean_feature(x)), relation_matrix(mean_feature(b)))

    loss(a).backward()
    direction = torch.randn(a.shape, generator=generator)
    with torch.no_grad():
        step = 1e-2
        numeric = (loss(a + step * direction) - loss(a - step * direction)) / (2 * step)
    assert (a.grad * direction).sum().item() == pytest.approx(numeric.item(), rel=1e-2)


@pytest.mark.parametrize(("squared", "exponent"), [(False, -2.5), (True, -1.25)])
def test_the_ramp_up_follows_the_paper_or_its_source(squared: bool, exponent: float) -> None:
    assert ramp_up(50, 100, squared=squared) == pytest.approx(0.1 * math.exp(exponent))
    assert ramp_up(0, 100, squared=squared) == pytest.approx(0.1 * math.exp(-5))
    assert ramp_up(100, 100, squared=squared) == ramp_up(120, 100, squared=squared) == pytest.approx(0.1)
