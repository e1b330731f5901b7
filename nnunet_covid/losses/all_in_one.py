"""The loss of a network that has Inf-Net's maps and edges beside the maps of its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nnunet_covid.losses.inf_net import SplitTarget, edge_bce


class GuidedLoss(nn.Module):
    r"""The loss of the decoder's maps, that of Inf-Net's maps, and that of the edges.

    .. math:: L = L_{decoder} + \lambda_{maps} L_{maps} + \lambda_{edge} L_{edge}

    Args:
        decoder: Called with the decoder's maps (and whatever stands behind Inf-Net's) and all targets.
        maps: Called with Inf-Net's maps and all targets; ``None`` where there are none.
        number: Of Inf-Net's maps.
        edge: Turns the first target into (reference, valid) for :func:`nnunet_covid.losses.inf_net.edge_bce`; ``None``
            where there are no edge logits.
        edge_axes: As for that.
        weights: λ of maps and edges.
    """

    def __init__(
        self,
        decoder: nn.Module,
        maps: nn.Module | None,
        number: int,
        edge: SplitTarget | None,
        edge_axes: Sequence[bool] | None,
        weights: tuple[float, float],
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.maps = maps
        self.number = number
        self.edge = edge
        self.edge_axes = edge_axes
        self.weights = weights

    def forward(self, outputs: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> Any:
        """Scalar loss.

        Args:
            outputs: As many maps of the decoder as targets, then Inf-Net's, then the edge logits, then the others.
            target: Fine to coarse.
        """
        of_decoder, guides = list(outputs[: len(target)]), list(outputs[len(target) :])
        own, guides = guides[: self.number], guides[self.number :]
        edges = guides.pop(0) if self.edge is not None else None
        loss = self.decoder([*of_decoder, *guides], list(target))
        if self.maps is not None:
            loss = loss + self.weights[0] * self.maps(own, list(target))
        if edges is not None and self.edge is not None:
            reference, valid = self.edge(target[0])
            loss = loss + self.weights[1] * edge_bce(edges.float(), reference, valid, self.edge_axes)
        return loss
