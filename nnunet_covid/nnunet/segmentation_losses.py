"""nnU-Net's losses as this project's trainers combine them: Dice alone, and one loss for every map of a decoder."""

from __future__ import annotations

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

SMOOTHING = 1e-5
"""Added to numerator and denominator, as nnU-Net does: it only matters where a class is absent."""


class DiceLoss(nn.Module):
    r"""One minus the soft Dice of the foreground, :math:`1 - 2 |G \cap S| / (|G| + |S|)`.

    Source: SSA-Net (Wang et al., Medical Image Analysis 2022), eq. (6), computed by nnU-Net's own Dice. Softmax over
    background and classes, or a sigmoid per region; the mean over the foreground.

    Args:
        label_manager: Of the plans and dataset.json; regions and an ignore label are honoured.
        batch_dice: Sum over the batch before the ratio, as the plans say.
        ddp: Sum over the processes of a multi-GPU training too (with ``batch_dice``).
    """

    def __init__(self, label_manager: LabelManager, *, batch_dice: bool, ddp: bool) -> None:
        super().__init__()
        self.has_regions: bool = label_manager.has_regions
        self.ignore_label: int | None = label_manager.ignore_label
        self.dice = MemoryEfficientSoftDiceLoss(
            apply_nonlin=torch.sigmoid if self.has_regions else softmax_helper_dim1,
            batch_dice=batch_dice,
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
