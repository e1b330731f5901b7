"""CutMix and copy-paste against voxel-by-voxel references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nnunet_covid.semi_supervised.mixing import SHARES, boxes, copy_paste, cut_mix, random_box

SIZES = [(12, 9), (7, 8, 6)]


def inside(box: tuple[slice, ...] | None, voxel: tuple[int, ...]) -> bool:
    return box is not None and all(part.start <= at < part.stop for part, at in zip(box, voxel, strict=True))


@pytest.mark.parametrize("size", [(128, 96), (64, 48, 40)])
def test_boxes_lie_inside_have_the_wanted_shares_and_reach_every_border(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    shares = []
    reached = [np.zeros(whole, bool) for whole in size]
    for _ in range(400):
        box = random_box(size, rng)
        assert all(0 <= part.start < part.stop <= whole for part, whole in zip(box, size, strict=True))
        for along, part in zip(reached, box, strict=True):
            along[part] = True
        shares.append(np.prod([part.stop - part.start for part in box]) / np.prod(size))
    assert all(along.all() for along in reached)
    assert min(shares) >= 0.9 * SHARES[0]
    assert max(shares) <= 1.1 * SHARES[1]
    assert np.mean(shares) == pytest.approx(np.mean(SHARES), abs=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_cutmix_takes_image_and_labels_of_the_next_image_inside_the_box(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, *size, generator=generator)
    labels = [torch.randint(0, 9, (3, *size), generator=generator).short() for _ in range(2)]
    kept = images.clone(), [one.clone() for one in labels]
    mixed, (first, second) = cut_mix(images, labels, 0.7, np.random.default_rng(5))
    cut = boxes(3, size, 0.7, np.random.default_rng(5))
    assert None in cut
    assert any(box is not None for box in cut)
    for i, voxel in itertools.product(range(3), np.ndindex(size)):
        source = (i + 1) % 3 if inside(cut[i], voxel) else i
        assert torch.equal(mixed[(i, slice(None), *voxel)], kept[0][(source, slice(None), *voxel)])
        assert first[(i, *voxel)] == kept[1][0][(source, *voxel)]
        assert second[(i, *voxel)] == kept[1][1][(source, *voxel)]
    assert torch.equal(images, kept[0]), "the views themselves stay as they are"


def test_cutmix_of_a_single_image_or_with_chance_zero_changes_nothing() -> None:
    images, labels = torch.randn(3, 1, 8, 8), [torch.zeros(3, 8, 8)]
    assert torch.equal(cut_mix(images, labels, 0.0, np.random.default_rng(0))[0], images)
    assert torch.equal(cut_mix(images[:1], [labels[0][:1]], 1.0, np.random.default_rng(0))[0], images[:1])


@pytest.mark.parametrize("size", SIZES)
def test_copy_paste_goes_both_ways(size: tuple[int, ...]) -> None:
    """Unlabelled images are positive, labelled ones negative: every voxel says where it comes from."""
    count, fewer = 12, 2
    images = torch.arange(1, count + 1).float().view(-1, 1, *[1] * len(size)).expand(count, 1, *size)
    labelled = -torch.arange(1, fewer + 1).float().view(-1, 1, *[1] * len(size)).expand(fewer, 1, *size)
    labels = (images[:, 0].short(), (10 * images[:, 0]).short())
    mixed, found = copy_paste(images, labels, (labelled, labelled[:, 0].short()), 0.8, np.random.default_rng(1))
    cut = boxes(count, size, 0.8, np.random.default_rng(1))
    kinds = set()
    for i in range(count):
        mine, theirs = i + 1, -(i % fewer + 1)
        box = torch.tensor([inside(cut[i], voxel) for voxel in np.ndindex(size)]).view(size)
        into_unlabelled = torch.where(box, theirs, mine)
        into_labelled = torch.where(box, mine, theirs)
        if torch.equal(mixed[i, 0].long(), into_unlabelled):
            kinds.add("plain" if cut[i] is None else "into unlabelled")
        else:
            assert torch.equal(mixed[i, 0].long(), into_labelled)
            kinds.add("into labelled")
        assert torch.equal(found[0][i].long(), mixed[i, 0].long())
        assert torch.equal(found[1][i].long(), torch.where(mixed[i, 0] > 0, 10 * mixed[i, 0], mixed[i, 0]).long())
    assert kinds == {"plain", "into unlabelled", "into labelled"}
