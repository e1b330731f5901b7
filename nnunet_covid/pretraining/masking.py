"""What is hidden from the network and what it is asked for: masks in blocks, images under them, the loss there.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, §3: most of an image is hidden, and
the loss, the mean squared error, counts hidden voxels alone. Blocks instead of tokens, and the mean in the place of
what is hidden, are for networks of convolutions. Tensors alone; no file, no trainer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch


def blocks_of(patch: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Blocks along each axis of a patch, the last one cut off where the patch is no multiple."""
    return tuple(math.ceil(size / side) for size, side in zip(patch, block, strict=True))


def masked_blocks(patch: Sequence[int], block: Sequence[int], share: float) -> int:
    """How many blocks are hidden: the share, rounded, but at least one, and at least one stays visible.

    Raises:
        ValueError: If the patch has only one block, or the share does not lie between 0 and 1.
    """
    if not 0 < share < 1:
        msg = f"a share of {share:g} hidden voxels leaves nothing to learn from or to learn; it lies between 0 and 1"
        raise ValueError(msg)
    blocks = math.prod(blocks_of(patch, block))
    if blocks < 2:
        sizes = ["×".join(map(str, size)) for size in (patch, block)]
        msg = f"the patch of {sizes[0]} voxels is a single block of the deepest stride, {sizes[1]}: plan a larger patch"
        raise ValueError(msg)
    return min(max(round(share * blocks), 1), blocks - 1)


def block_mask(
    images: int, patch: Sequence[int], block: Sequence[int], share: float, generator: torch.Generator
) -> torch.Tensor:
    """A mask for each image, drawn by itself, the same number of blocks in each.

    Args:
        images: B.
        patch: Voxels along each spatial axis.
        block: The same of a block; blocks begin at the patch's first voxel, as the strides of an encoder do.
        share: Of the blocks that are hidden.
        generator: Draws them.

    Returns:
        (B, 1, *patch), true where hidden.
    """
    hidden, grid = masked_blocks(patch, block, share), blocks_of(patch, block)
    order = torch.rand(images, math.prod(grid), generator=generator).argsort(dim=1)
    mask = (order < hidden).reshape(images, 1, *grid)
    for axis, (side, size) in enumerate(zip(block, patch, strict=True), 2):
        mask = mask.repeat_interleave(side, dim=axis).narrow(axis, 0, size)
    return mask


def hide(image: torch.Tensor, mask: torch.Tensor, zero_mean: Sequence[bool]) -> torch.Tensor:
    """The image with the channel's mean where the mask is.

    Args:
        image: (B, C, *spatial).
        mask: (B, 1, *spatial).
        zero_mean: For each channel whether it is normalised to the mean 0; the mean of another channel, a lung mask for
            one, is that of the image's visible voxels.
    """
    if all(zero_mean):
        return image.masked_fill(mask, 0)
    axes = tuple(range(2, image.ndim))
    visible = ~mask
    mean = (image * visible).sum(axes, keepdim=True) / visible.sum(axes, keepdim=True)
    mean[:, list(itertools.compress(range(len(zero_mean)), zero_mean))] = 0
    return torch.where(mask, mean, image)


def loss_on_masked(reconstruction: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of hidden voxels, over all channels; a scalar in float32.

    Args:
        reconstruction: (B, C, *spatial).
        image: The same.
        mask: (B, 1, *spatial).
    """
    squared = (reconstruction.float() - image).square() * mask
    return squared.sum() / (mask.sum() * image.shape[1])
