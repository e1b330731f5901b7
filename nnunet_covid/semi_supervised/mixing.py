"""Boxes cut out of one image and put into another, with their labels: CutMix and copy-paste, in 2D and 3D.

Sources: Yun et al., "CutMix", ICCV 2019; sizes as in UniMatch (Yang et al., CVPR 2023); both ways between labelled and
unlabelled images as in BCP (Bai et al., CVPR 2023), with boxes at random places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

SHARES = (0.02, 0.4)
"""Bounds of a box's share of the patch."""
STRETCH = math.log(1 / 0.3) / 2
"""Bound of the logarithm by which an axis of the box is longer or shorter: aspects between 0.3 and 1 / 0.3."""

Box = tuple[slice, ...]


def random_box(size: Sequence[int], rng: np.random.Generator) -> Box:
    """A box inside a patch of this size, one slice per axis."""
    share = rng.uniform(*SHARES)
    stretch = rng.uniform(-STRETCH, STRETCH, len(size))
    sides = np.exp(math.log(share) / len(size) + stretch - stretch.mean())
    box = []
    for whole, side in zip(size, sides, strict=True):
        length = min(whole, max(1, round(whole * side)))
        start = int(rng.integers(0, whole - length + 1))
        box.append(slice(start, start + length))
    return tuple(box)


def boxes(count: int, size: Sequence[int], probability: float, rng: np.random.Generator) -> list[Box | None]:
    """A box for each of ``count`` images with this probability, ``None`` for the others."""
    return [random_box(size, rng) if rng.random() < probability else None for _ in range(count)]


def paste(onto: torch.Tensor, source: torch.Tensor, cut: Sequence[Box | None]) -> torch.Tensor:
    """A copy of ``onto`` (B, …, *spatial) in which each box holds what ``source``, of the same shape, has there."""
    mixed = onto.clone()
    for i, box in enumerate(cut):
        if box is not None:
            inside: tuple[Any, ...] = (i, ..., *box)
            mixed[inside] = source[inside]
    return mixed


def cut_mix(
    images: torch.Tensor, labels: Sequence[torch.Tensor], probability: float, rng: np.random.Generator
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Each image gets a box of the next one with this probability, the last one of the first; a single one stays.

    Args:
        images: (B, C, *spatial).
        labels: Any number of label maps (B, *spatial), mixed alike.
        probability: Of a box.
        rng: Draws the boxes.
    """
    if len(images) < 2:
        return images, list(labels)
    cut = boxes(len(images), images.shape[2:], probability, rng)
    return paste(images, images.roll(-1, 0), cut), [paste(one, one.roll(-1, 0), cut) for one in labels]


def copy_paste(
    images: torch.Tensor,
    labels: Sequence[torch.Tensor],
    labelled: tuple[torch.Tensor, torch.Tensor],
    probability: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Boxes of labelled images in unlabelled ones, or of unlabelled in labelled ones, either with equal chance.

    Args:
        images, labels: Of unlabelled images, as for :func:`cut_mix`.
        labelled: Images and one label map each; taken in turn where there are fewer.
        probability: That an unlabelled image is mixed at all.
        rng: Draws boxes and directions.

    Returns:
        As many images and label maps as there are unlabelled ones.
    """
    count = len(images)
    cut = boxes(count, images.shape[2:], probability, rng)
    turned = [box is not None and rng.random() < 0.5 for box in cut]
    partner = torch.arange(count, device=images.device) % len(labelled[0])

    def mixed(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        other = theirs[partner].to(mine.dtype)
        into_unlabelled, into_labelled = paste(mine, other, cut), paste(other, mine, cut)
        return torch.stack([(into_labelled if turned[i] else into_unlabelled)[i] for i in range(count)])

    return mixed(images, labelled[0]), [mixed(one, labelled[1]) for one in labels]
