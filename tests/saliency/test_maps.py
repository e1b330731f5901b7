"""Attention maps equal equation (2) of SSA-Net written as loops; CAMs those of networks with known gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import resize
from torch import nn

from nnunet_covid.saliency.maps import (
    attribution,
    channel_weights,
    class_activation_map,
    class_score,
    feature_gradients,
    resized,
    share_left,
    spatial_softmax,
)

SIZES = [(6, 5), (3, 4, 5)]


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


def linear_case(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (1, 3, *size), the weights of two linear heads (2, 3), and voxel weights (*size)."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((1, 3, *size), generator=generator, dtype=torch.float64).requires_grad_()
    heads = torch.randn((2, 3), generator=generator, dtype=torch.float64)
    return features, heads, torch.rand(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_a_linear_head_gives_its_own_weights(size: tuple[int, ...]) -> None:
    features, heads, weight = linear_case(size)
    logits = torch.einsum("bc...,kc->bk...", features, heads)
    (gradient,) = feature_gradients(class_score(logits, 1, weight), [features])
    alpha = channel_weights(gradient)

    # y = Σ_v w_v Σ_k h_k A_k(v), so the mean of its gradient is h_k times the mean of w
    np.testing.assert_allclose(alpha, heads[1] * weight.mean(), rtol=1e-12)
    combined = np.einsum("c...,c->...", features[0].detach(), heads[1]) * weight.mean().item()
    expected = np.maximum(combined, 0)
    assert (expected > 0).any()
    assert (expected == 0).any()
    np.testing.assert_allclose(class_activation_map(features, alpha).detach()[0, 0], expected, rtol=1e-10)
    by_position = np.einsum("c...,c->...", features[0].detach(), heads[1]) * weight.numpy()
    np.testing.assert_allclose(attribution(features, gradient).detach()[0, 0], by_position, rtol=1e-10)


def test_attributions_of_a_linear_network_add_up_to_the_score() -> None:
    features, heads, weight = linear_case(SIZES[0])
    score = class_score(torch.einsum("bc...,kc->bk...", features, heads), 0, weight)
    (gradient,) = feature_gradients(score, [features])
    assert attribution(features, gradient).sum().item() == pytest.approx(score.item())


def test_every_stage_is_reached_through_all_that_follows_it() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 2, 1).double(), nn.Conv2d(2, 1, 1).double()
    shallow = first(torch.randn(1, 1, 4, 4, dtype=torch.float64))
    deep = second(shallow)
    score = class_score(deep + shallow[:, :1], 0, torch.ones(4, 4, dtype=torch.float64))
    gradients = feature_gradients(score, [shallow, deep])
    direct = torch.tensor([1.0, 0.0], dtype=torch.float64)
    np.testing.assert_allclose(channel_weights(gradients[0]), (second.weight.flatten() + direct).detach())
    np.testing.assert_allclose(channel_weights(gradients[1]), [1.0])


def test_a_stage_without_influence_gets_zeros() -> None:
    features, heads, weight = linear_case(SIZES[0])
    aside = torch.ones(1, 5, 2, 2, requires_grad=True)
    score = class_score(torch.einsum("bc...,kc->bk...", features, heads), 0, weight)
    _, gradient = feature_gradients(score, [features, aside])
    assert gradient.shape == aside.shape
    assert not gradient.any()
    assert share_left(gradient) == 0


def test_instance_normalisation_empties_the_mean_and_leaves_the_positions() -> None:
    features, heads, weight = linear_case((16, 16))
    plain = torch.einsum("bc...,kc->bk...", features, heads)
    scores = [class_score(logits, 0, weight) for logits in (plain, nn.functional.instance_norm(plain))]
    left = [share_left(feature_gradients(score, [features])[0]) for score in scores]
    assert left[0] == pytest.approx(1)
    assert left[1] < 1e-6
    (gradient,) = feature_gradients(scores[1], [features])
    assert attribution(features, gradient).abs().max() > 1e-3
