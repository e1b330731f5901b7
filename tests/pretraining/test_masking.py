from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_covid.pretraining.masking import block_mask, hide, loss_on_masked, masked_blocks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_blocks(mask: np.ndarray, block: tuple[int, ...]) -> list[np.ndarray]:
    """The parts of one mask that positions of the deepest feature stand for."""
    starts = [range(0, size, side) for size, side in zip(mask.shape, block, strict=True)]
    return [
        mask[tuple(slice(s, s + side) for s, side in zip(start, block, strict=True))]
        for start in itertools.product(*starts)
    ]


@settings(max_examples=60, deadline=None)
@given(
    sides=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=2, max_size=3),
    cut=st.booleans(),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_blocks_are_hidden_or_visible_as_a_whole_and_the_share_is_kept(sides, cut, share, seed) -> None:
    block = tuple(side for side, _ in sides)
    patch = tuple(max(1, side * blocks - (cut and side > 1)) for side, blocks in sides)
    blocks = math.prod(math.ceil(size / side) for size, side in zip(patch, block, strict=True))
    if blocks < 2:
        with pytest.raises(ValueError, match="single block"):
            masked_blocks(patch, block, share)
        return
    masks = block_mask(3, patch, block, share, generator(seed))
    assert masks.shape == (3, 1, *patch)
    for mask in masks[:, 0].numpy():
        parts = naive_blocks(mask, block)
        assert len(parts) == blocks
        assert all(part.all() or not part.any() for part in parts)
        hidden = sum(bool(part.all()) for part in parts)
        assert hidden == min(max(round(share * blocks), 1), blocks - 1)


def test_every_image_has_a_mask_of_its_own_and_every_block_its_turn() -> None:
    masks = block_mask(400, (8, 12), (4, 4), 0.65, generator())[:, 0, ::4, ::4].float()
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 10
    np.testing.assert_allclose(masks.mean(0), 4 / 6, atol=0.09)
    again = block_mask(400, (8, 12), (4, 4), 0.65, generator())[:, 0, ::4, ::4].float()
    assert torch.equal(masks, again)
    assert not torch.equal(masks, block_mask(400, (8, 12), (4, 4), 0.65, generator(1))[:, 0, ::4, ::4].float())


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5])
def test_a_share_must_leave_something_to_see_and_something_to_learn(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        masked_blocks((8, 8), (2, 2), share)


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_hidden_becomes_the_mean_of_its_channel(dims: int) -> None:
    patch = (8,) * dims
    image = torch.randn(2, 2, *patch, generator=generator())
    image[:, 1] = (image[:, 1] > 0).float()
    mask = block_mask(2, patch, (4,) * dims, 0.5, generator())
    both, first = hide(image, mask, [True, True]), hide(image, mask, [True, False])
    for i in range(2):
        where = mask[i, 0]
        for seen in (both, first):
            assert torch.equal(seen[i][:, ~where], image[i][:, ~where])
            assert (seen[i, 0][where] == 0).all()
        assert (both[i, 1][where] == 0).all()
        torch.testing.assert_close(first[i, 1][where], image[i, 1][~where].mean().expand(int(where.sum())))


def test_the_loss_is_the_mean_square_of_hidden_voxels_and_teaches_nothing_elsewhere() -> None:
    image = torch.randn(3, 2, 6, 8, generator=generator(1))
    mask = block_mask(3, (6, 8), (2, 4), 0.6, generator(2))
    found = torch.randn(3, 2, 6, 8, generator=generator(3), requires_grad=True)
    loss = loss_on_masked(found, image, mask)
    squares = [
        (found[b, c, y, x].item() - image[b, c, y, x].item()) ** 2
        for b, c, y, x in itertools.product(range(3), range(2), range(6), range(8))
        if mask[b, 0, y, x]
    ]
    assert loss.item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    loss.backward()
    where = mask.expand(3, 2, 6, 8)
    assert (found.grad[~where] == 0).all()
    assert (found.grad[where] != 0).all()
