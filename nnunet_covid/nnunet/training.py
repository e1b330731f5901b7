"""What this project's trainers put in the place of nnU-Net's own: targets, Dice, schedule and augmentation.

The losses of the papers stand in :mod:`nnunet_covid.losses` and know nothing of nnU-Net; the trainers join the two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_covid.dataset_json import GUIDED_KEY

SMOOTHING = 1e-5
"""Added to numerator and denominator, as nnU-Net does: it only matters where a class is absent."""
GRADIENT_NORM = 12.0
"""nnU-Net's limit (``nnUNetTrainer.train_step``)."""


class OneHotTarget:
    """Splits a target into the foreground classes and the voxels that count.

    Label maps (B, 1, *spatial) become one channel per foreground label; region targets (B, regions[+1], *spatial) are
    already channels, the last being the ignored voxels where the data set has an ignore label.

    Args:
        label_manager: Of the plans and dataset.json.
    """

    def __init__(self, label_manager: LabelManager) -> None:
        self.has_regions: bool = label_manager.has_regions
        self.labels: list[int] = list(label_manager.foreground_labels)
        self.ignore_label: int | None = label_manager.ignore_label

    def __call__(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reference (B, classes, *spatial), float32 of 0 and 1, and valid (B, 1, *spatial) or ``None``."""
        if self.has_regions:
            if self.ignore_label is None:
                return target.float(), None
            return target[:, :-1].float(), 1 - target[:, -1:].float()
        reference = torch.cat([target == label for label in self.labels], dim=1).float()
        if self.ignore_label is None:
            return reference, None
        return reference, (target != self.ignore_label).float()


class DiceLoss(nn.Module):
    r"""One minus the soft Dice of the foreground, :math:`1 - 2 |G \cap S| / (|G| + |S|)`.

    Source: SSA-Net (Wang et al., Medical Image Analysis 2022), eq. (6), computed by nnU-Net's own Dice. Softmax over
    background and classes, or a sigmoid per region; the mean over the foreground. Both sums go over the batch.

    Args:
        label_manager: Of the plans and dataset.json; regions and an ignore label are honoured.
        ddp: Sum over the processes of a multi-GPU training too.
    """

    def __init__(self, label_manager: LabelManager, *, ddp: bool) -> None:
        super().__init__()
        self.has_regions: bool = label_manager.has_regions
        self.ignore_label: int | None = label_manager.ignore_label
        self.dice = MemoryEfficientSoftDiceLoss(
            apply_nonlin=torch.sigmoid if self.has_regions else softmax_helper_dim1,
            batch_dice=True,
            do_bg=self.has_regions,
            smooth=SMOOTHING,
            ddp=ddp,
        )

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits (B, heads, *spatial) and nnU-Net's target of the same size."""
        if self.ignore_label is None:
            return 1 + self.dice(logits, target)
        if self.has_regions:
            valid = 1 - target[:, -1:].float()
            return 1 + self.dice(logits, target[:, :-1], loss_mask=valid)
        valid = target != self.ignore_label
        return 1 + self.dice(logits, torch.where(valid, target, 0), loss_mask=valid)


def map_loss(kind: str, label_manager: LabelManager, *, batch_dice: bool, ddp: bool) -> nn.Module:
    """The loss between one map and its target: Dice alone, or nnU-Net's own.

    Dice alone is always taken over the batch, whatever the plans say: the Dice of a single patch without foreground has
    no gradient, so most 3D patches would teach nothing.

    Args:
        kind: ``"dice"`` or ``"dice_ce"``, Dice and cross entropy (binary with regions).
        batch_dice: Of the plans.
    """
    if kind == "dice":
        return DiceLoss(label_manager, ddp=ddp)
    has_regions, ignore_label = label_manager.has_regions, label_manager.ignore_label
    dice = {"batch_dice": batch_dice, "smooth": SMOOTHING, "do_bg": has_regions, "ddp": ddp}
    if has_regions:
        use_ignore_label = ignore_label is not None
        return DC_and_BCE_loss({}, dice, use_ignore_label=use_ignore_label, dice_class=MemoryEfficientSoftDiceLoss)
    return DC_and_CE_loss(dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss)


def supervise_every_map(loss: nn.Module, num_maps: int, *, coarsest: float) -> nn.Module:
    """nnU-Net's deep supervision: the weight halves from map to map, the weights sum to one.

    Args:
        num_maps: Maps that the network returns, fine to coarse.
        coarsest: Share of the coarsest map before normalisation: nnU-Net's 0, or a number so small that multi-GPU
            training finds no unused parameter. A single map always counts.
    """
    weights = [0.5**i for i in range(num_maps)]
    if num_maps > 1:
        weights[-1] = coarsest
    return DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])


def poly(epochs: int) -> Callable[[int], float]:
    """nnU-Net's schedule, :math:`(1 - e / E)^{0.9}` of the initial rate in epoch e of E."""
    return lambda epoch: (1 - epoch / epochs) ** 0.9


def step_decay(period: int) -> Callable[[int], float]:
    """The factor 0.1 after every ``period`` epochs."""
    return lambda epoch: 0.1 ** (epoch // max(1, period))


def warmed_up(factor: Callable[[int], float], epochs: int) -> Callable[[int], float]:
    """The same, rising linearly over the first epochs: 1/(n + 1), 2/(n + 1) and so on of it."""
    return lambda epoch: factor(epoch) * min(1.0, (epoch + 1) / (epochs + 1))


class EpochSchedule(LRScheduler):
    """A factor per epoch for every group's own learning rate; called as nnU-Net's schedule, ``step(epoch)``.

    Args:
        factor: Of the initial rates, by epoch.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self.factor = factor
        self.initial_lr = [group["lr"] for group in optimizer.param_groups]
        self.counter = 0
        super().__init__(optimizer)

    def step(self, current_step: int | None = None) -> None:  # type: ignore[override]
        """Set the learning rates of an epoch (the next one by default)."""
        if current_step is None or current_step == -1:
            current_step = self.counter
            self.counter += 1
        factor = self.factor(current_step)
        for group, initial in zip(self.optimizer.param_groups, self.initial_lr, strict=True):
            group["lr"] = initial * factor
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class ChannelsSpared(BasicTransform):
    """A change of intensities that leaves some channels as they are.

    Args:
        transform: The change.
        channels: Indices of what is no image: a mask of 0 and 1 has no noise, contrast or gamma.
    """

    def __init__(self, transform: BasicTransform, channels: Sequence[int]) -> None:
        super().__init__()
        self.transform = transform
        self.channels = list(channels)

    def __call__(self, **data: Any) -> dict[str, Any]:
        kept = data["image"][self.channels].clone()
        data = self.transform(**data)
        data["image"][self.channels] = kept
        return data


def mask_channels(configuration: ConfigurationManager, dataset_json: dict[str, Any]) -> list[int]:
    """Channels that nnU-Net does not normalise beside some that it does: masks, whose values shall stay 0 and 1.

    So shall those of the infection map of a guided data set, its last channel, which pictures hold as 0 to 255.
    """
    schemes = configuration.normalization_schemes
    guided = len(schemes) - 1 if GUIDED_KEY in dataset_json else None
    masks = [i for i, scheme in enumerate(schemes) if scheme == "NoNormalization" or i == guided]
    return masks if len(masks) < len(schemes) else []


def spare_channels(transform: Any, channels: Sequence[int]) -> Any:
    """Keep all changes of intensity in nnU-Net's augmentation away from these channels; returns the augmentation."""
    transform.transforms = [ChannelsSpared(t, channels) if changes_intensity(t) else t for t in transform.transforms]
    return transform


def changes_intensity(transform: Any) -> bool:
    """Whether it, or all that it applies, changes an image and leaves its labels alone."""
    return all(isinstance(one, ImageOnlyTransform) for one in innermost(transform))


def innermost(transform: Any) -> list[Any]:
    """What a transform applies in the end: one after the other, one of several, at random or to some channels alone."""
    inside = _inside(transform)
    return [one for inner in inside for one in innermost(inner)] if inside else [transform]


def _inside(transform: Any) -> list[Any]:
    """The transforms that a transform is made of; nothing of one that changes something itself."""
    several = [*getattr(transform, "transforms", []), *getattr(transform, "list_of_transforms", [])]
    return [*several, transform.transform] if hasattr(transform, "transform") else several


def with_probability(transform: Any, probability: float) -> Any:
    """A transform, and all that it applies at random, applied with this probability; returns the transform."""
    if isinstance(transform, RandomTransform):
        transform.apply_probability = probability
    for inner in _inside(transform):
        with_probability(inner, probability)
    return transform


def without_timing(transform: Any) -> Any:
    """Switch off the timing in a transform and in all that it is made of; returns the transform.

    nnU-Net's Gaussian blur times two implementations and takes the faster one: the same seed, other last digits.
    """
    if hasattr(transform, "benchmark"):
        transform.benchmark = False
    for inner in _inside(transform):
        without_timing(inner)
    return transform


def spatial_only(transform: Any) -> Any:
    """Take all changes of intensity out of nnU-Net's augmentation; returns the augmentation."""
    transform.transforms = [t for t in transform.transforms if not changes_intensity(t)]
    return transform


def unwrapped(network: nn.Module) -> nn.Module:
    """A network without the wrappers of multi-GPU training and compilation."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def seed_everything(seed: int) -> None:
    """Seed all the generators that nnU-Net draws from; numpy's takes no more than 32 bits."""
    random.seed(seed % 2**32)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**32)
