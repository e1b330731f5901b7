"""Self-attention distillation equals eqs. (1)–(4) of SSA-Net, written out position by position."""

from __future__ import annotations

import itertools
import math

import naive
import numpy as np
import pytest
import torch

from nnunet_covid.losses.ssa_net import (
    SelfAttentionDistillation,
    attention_distribution,
    attention_map,
    distillation_loss,
)

STAGES = {
    "2d": [(3, (9, 7)), (4, (5, 4)), (5, (3, 2)), (6, (2, 1))],
    "3d": [(3, (5, 7, 6)), (4, (3, 4, 3)), (2, (3, 2, 2))],
    "2d, one row": [(2, (1, 8)), (3, (1, 4))],
    "3d, one plane": [(2, (1, 5, 4)), (3, (1, 3, 2))],
}


def random_stages(name: str, samples: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        0.7 * torch.randn(samples, channels, *size, generator=generator, dtype=torch.float64)
        for channels, size in STAGES[name]
    ]


def naive_attention(features: np.ndarray, z: float) -> np.ndarray:
    """Eq. (1), one position and channel at a time; features of one sample."""
    result = np.zeros(features.shape[1:])
    for position in np.ndindex(*result.shape):
        for channel in range(features.shape[0]):
            result[position] += abs(features[(channel, *position)]) ** z
    return result


def naive_softmax(attention: np.ndarray) -> np.ndarray:
    exponentials = np.exp(attention - attention.max())
    return exponentials / exponentials.sum()


def naive_loss(stages: list[np.ndarray], z: float) -> float:
    """Eqs. (2)–(4), sample by sample."""
    samples = len(stages[0])
    total = 0.0
    for n in range(samples):
        maps = [naive_attention(stage[n], z) for stage in stages]
        for earlier, later in itertools.pairwise(maps):
            upsampled = naive.resize(later[None, None], earlier.shape)[0, 0]
            total += ((naive_softmax(earlier) - naive_softmax(upsampled)) ** 2).mean()
    return total / samples


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("z", [1, 2, 3])
def test_the_loss_equals_the_equations(name: str, z: int) -> None:
    stages = random_stages(name)
    expected = naive_loss([s.numpy() for s in stages], z)
    assert expected > 0
    for detach in (True, False):
        assert distillation_loss(stages, z, detach=detach).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", STAGES)
def test_attention_equals_equations_1_and_2(name: str) -> None:
    stages = random_stages(name)
    for z in (1, 2, 2.5):
        attention = attention_map(stages[0], z)
        np.testing.assert_allclose(attention[1].numpy(), naive_attention(stages[0][1].numpy(), z), rtol=1e-10)
    coarse = attention_map(stages[1])
    distribution = attention_distribution(coarse, stages[0].shape[2:])
    assert distribution.shape == (2, *stages[0].shape[2:])
    np.testing.assert_allclose(distribution.flatten(1).sum(1), 1, rtol=1e-10)
    expected = naive_softmax(naive.resize(coarse[:, None].numpy(), tuple(stages[0].shape[2:]))[1, 0])
    np.testing.assert_allclose(distribution[1].numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("z", [1, 2, 3])
def test_gradients_match_finite_differences(name: str, z: int) -> None:
    stages = [s.requires_grad_() for s in random_stages(name)]

    def loss(*stages: torch.Tensor) -> torch.Tensor:
        return 100 * distillation_loss(stages, z, detach=False)

    assert torch.autograd.gradcheck(loss, stages, fast_mode=not name.endswith(("row", "plane")))


def test_a_detached_target_learns_nothing_and_the_earlier_stage_the_same() -> None:
    gradients = {}
    for detach in (True, False):
        stages = [s.requires_grad_() for s in random_stages("2d")[:2]]
        distillation_loss(stages, detach=detach).backward()
        gradients[detach] = [s.grad for s in stages]
    assert gradients[True][1] is None
    assert gradients[False][1].abs().sum() > 0
    torch.testing.assert_close(gradients[True][0], gradients[False][0])


def test_following_the_gradient_brings_the_earlier_map_to_the_later_one() -> None:
    earlier, later = random_stages("2d, one row", samples=1)
    later = later / 2
    earlier.requires_grad_()
    optimizer = torch.optim.Adam([earlier], lr=0.02)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = distillation_loss([earlier, later])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_the_scale_of_half_precision_features_does_not_overflow() -> None:
    stages = [torch.full((1, 512, 4, 4), 300.0, dtype=torch.float16), torch.zeros(1, 512, 2, 2, dtype=torch.float16)]
    assert attention_map(stages[0]).dtype == torch.float32
    assert distillation_loss(stages).isfinite()


def test_the_loss_waits_for_its_epoch() -> None:
    stages = random_stages("2d")
    loss = SelfAttentionDistillation(start_epoch=40)
    values = []
    for loss.epoch in (0, 39, 40, 41):
        values.append(loss(stages).item())
    expected = distillation_loss(stages).item()
    assert values == [0, 0, expected, expected]


@pytest.mark.parametrize("z", [0.5, 0, -1, math.nan, math.inf])
def test_an_exponent_below_one_or_infinite_is_refused(z: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SelfAttentionDistillation(z)
    with pytest.raises(ValueError, match="at least 1"):
        attention_map(torch.ones(1, 1, 2, 2), z)


def test_a_single_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two encoder stages"):
        distillation_loss([torch.ones(1, 1, 2, 2)])


def test_standardised_attention_is_its_formula() -> None:
    stages = random_stages("2d")
    total = 0.0
    for n in range(2):
        maps = [naive_attention(stage[n].numpy(), 2) for stage in stages]
        for earlier, later in itertools.pairwise(maps):
            pair = (earlier, naive.resize(later[None, None], earlier.shape)[0, 0])
            a, b = (naive_softmax((m - m.mean()) / (m.std(ddof=1) + 1e-6)) for m in pair)
            total += ((a - b) ** 2).sum() / 2
    actual = distillation_loss(stages, standardise=True)
    assert actual.item() == pytest.approx(total, rel=1e-6)


def test_standardised_attention_has_a_gradient_where_sums_of_squares_have_none() -> None:
    """Features of a real encoder have hundreds of channels: one position takes the whole softmax."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 16), (128, 8)]
    gradients = {}
    for standardise in (False, True):
        stages = [3 * torch.randn(1, c, s, s, generator=generator, dtype=torch.float64) for c, s in sizes]
        stages[0].requires_grad_()
        distillation_loss(stages, standardise=standardise).backward()
        assert stages[0].grad is not None
        gradients[standardise] = stages[0].grad.abs().max().item()
    assert gradients[True] > 1e4 * gradients[False]
