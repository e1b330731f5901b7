"""The whole loss of SSA-Net over what the network returns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.losses.self_attention_distillation import SelfAttentionDistillation

PAPER_WEIGHT = 0.1
"""α of eq. (7) (SSA-Net, §3.1.4)."""


class SSANetLoss(nn.Module):
    r"""Segmentation and distillation, :math:`L = L_{seg} + \alpha L_{SA}`, eq. (7) of SSA-Net.

    Args:
        segmentation: Called with the list of maps and the list of targets.
        distillation: ``None`` leaves it out.
        weight: α.
    """

    def __init__(
        self,
        segmentation: nn.Module,
        distillation: SelfAttentionDistillation | None,
        weight: float = PAPER_WEIGHT,
    ) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.distillation = distillation
        self.weight = weight

    def forward(self, outputs: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scalar loss.

        Args:
            outputs: As many segmentation maps as targets, and after them, with distillation, the encoder's stages.
            target: One target for every segmentation map.
        """
        maps, stages = list(outputs[: len(target)]), list(outputs[len(target) :])
        loss = self.segmentation(maps, list(target))
        return loss if self.distillation is None else loss + self.weight * self.distillation(stages)
