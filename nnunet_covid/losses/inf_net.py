"""The whole loss of Inf-Net over all maps that the network returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from nnunet_covid.losses.functional import edge_bce, pixel_weight, structure_loss

OneHotTarget = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]


class InfNetLoss(nn.Module):
    r"""Deep supervision of Inf-Net, eq. (5).

    .. math:: L = L_{seg}(S_g) + \sum_i L_{seg}(S_i) + L_{edge}

    Every map has the size of the reference. The sum runs over all segmentation maps that the network gives, so it
    is the paper's for the paper's output and has one term more for each further step of the cascade.

    Args:
        split_target: Turns nnU-Net's target into (reference, valid): (B, classes, *spatial) of 0 and 1, and
            (B, 1, *spatial) or ``None`` without an ignore label.
        background: Whether the first map carries a background channel, which takes no part in the loss.
        edge: Whether the last map holds edge logits.
        bce_weight: λ of eq. (4).
    """

    def __init__(self, split_target: OneHotTarget, *, background: bool, edge: bool, bce_weight: float = 1.0) -> None:
        super().__init__()
        self.split_target = split_target
        self.background = background
        self.edge = edge
        self.bce_weight = bce_weight

    def forward(
        self,
        outputs: torch.Tensor | Sequence[torch.Tensor],
        target: torch.Tensor | Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Scalar loss; of several targets (nnU-Net's deep supervision) the first has full resolution."""
        maps = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        reference, valid = self.split_target(target if isinstance(target, torch.Tensor) else target[0])
        if self.background:
            maps[0] = maps[0][:, 1:]
        maps = [m.float() for m in maps]

        loss = torch.zeros((), device=reference.device)
        if self.edge and len(maps) > 1:
            loss = edge_bce(maps.pop(), reference, valid)
        weight = pixel_weight(reference, valid)
        for logits in maps:
            loss = loss + structure_loss(logits, reference, weight, self.bce_weight)
        return loss
