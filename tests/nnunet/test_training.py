"""What stands in the place of nnU-Net's own: rates per group, Dice over the batch, masks spared by the augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import planned
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.nnunet.training import (
    EpochSchedule,
    map_loss,
    poly,
    spare_channels,
    spatial_only,
    step_decay,
    warmed_up,
    with_probability,
    without_timing,
)


def rates(schedule: Any, optimiser: torch.optim.Optimizer, epochs: int) -> list[list[float]]:
    found = []
    for epoch in range(epochs):
        schedule.step(epoch)
        found.append([group["lr"] for group in optimiser.param_groups])
    return found


def optimiser(*initial: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in initial]
    return torch.optim.SGD(groups, lr=1.0)


def test_poly_is_nnunets_schedule() -> None:
    ours, theirs = optimiser(0.01), optimiser(0.01)
    expected = [r for (r,) in rates(PolyLRScheduler(theirs, 0.01, 20), theirs, 20)]
    assert [r for (r,) in rates(EpochSchedule(ours, poly(20)), ours, 20)] == pytest.approx(expected)


def test_every_group_keeps_its_share_and_warms_up() -> None:
    ours = optimiser(0.1, 0.01)
    found = rates(EpochSchedule(ours, warmed_up(step_decay(5), 2)), ours, 7)
    factors = [1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1]
    assert found == [pytest.approx([0.1 * f, 0.01 * f]) for f in factors]


def gradient_of_the_lesion_free(kind: str, *, batch_dice: bool) -> float:
    """Of the second of two 3D patches, the one without a lesion."""
    labels = PlansManager(planned.plans()).get_label_manager(planned.dataset_json())
    target = torch.zeros(2, 1, 4, 8, 8)
    target[0, :, 1:3, 2:6, 2:6] = 1
    logits = torch.zeros(2, 2, 4, 8, 8, requires_grad=True)
    map_loss(kind, labels, batch_dice=batch_dice, ddp=False)(logits, target).backward()
    assert logits.grad is not None
    return logits.grad[1].abs().max().item()


def test_dice_alone_learns_from_lesion_free_patches() -> None:
    """nnU-Net plans most 3D without batch Dice, where such a patch has a gradient of nothing."""
    assert gradient_of_the_lesion_free("dice", batch_dice=False) > 2e-5
    assert gradient_of_the_lesion_free("dice_ce", batch_dice=False) > 1e-4


@pytest.mark.parametrize("kind", [nnUNetTrainer, nnUNetTrainerDA5])
def test_masks_keep_their_values_and_images_change(kind: Any) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    transforms = kind.get_training_transforms((32, 32), (0.0, 0.0), None, (0, 1), False)
    image = torch.stack((torch.randn(32, 32), (torch.rand(32, 32) > 0.5).float()))
    seg = torch.zeros(1, 32, 32)
    seen: list[Any] = []
    for spared in (False, True):
        chosen = spare_channels(transforms, [1]) if spared else transforms
        outside = changed = 0
        for _ in range(60):
            result = chosen(image=image.clone(), segmentation=seg.clone())["image"]
            outside += bool((result[1] < -1e-6).any() or (result[1] > 1 + 1e-6).any())
            changed += not torch.equal(result[0].sort().values, image[0].sort().values)
        seen.append((outside, changed))
    assert seen[0][0] > 5
    assert seen[1][0] == 0
    assert seen[1][1] > 30


@pytest.mark.parametrize("kind", [nnUNetTrainer, nnUNetTrainerDA5])
def test_what_only_moves_voxels_gives_no_new_values_and_probability_0_neither(kind: Any) -> None:
    """Also of a choice between several changes, as DA5 has them."""
    torch.manual_seed(0)
    np.random.seed(0)
    image = torch.randn(2, 32, 32)
    for change in (spatial_only, lambda made: with_probability(made, 0.0)):
        made = kind.get_training_transforms((32, 32), (0.0, 0.0), None, (0, 1), False)
        without_scaling = [t for t in change(made).transforms if not isinstance(t, SpatialTransform)]
        for _ in range(40):
            seen = {"image": image.clone(), "segmentation": torch.zeros(1, 32, 32)}
            for transform in without_scaling:
                seen = transform(**seen)
            assert torch.equal(seen["image"].flatten(1).sort().values, image.flatten(1).sort().values)


def test_blur_among_several_changes_is_not_timed() -> None:
    blur = GaussianBlurTransform((0.3, 1.5), benchmark=True)
    without_timing(OneOfTransform([RandomTransform(blur, apply_probability=0.2)]))
    assert not blur.benchmark


def test_with_probability_1_every_choice_changes_something() -> None:
    made = nnUNetTrainerDA5.get_training_transforms((32, 32), (0.0, 0.0), None, (0, 1), False)
    choices = [t for t in made.transforms if isinstance(t, OneOfTransform)]
    assert choices
    for choice in choices:
        always = [one.apply_probability for one in with_probability(choice, 1.0).list_of_transforms]
        assert always == [1.0, 1.0]
