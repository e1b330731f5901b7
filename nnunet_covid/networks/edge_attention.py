"""The edge-attention branch on the low-level feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.networks.conv import ConvNorm, ConvStyle, kernel_on_axes, logits_layer


class EdgeAttention(nn.Module):
    """Three convolutions give the edge features, one more the edge logits.

    Source: Inf-Net (Fan et al., TMI 2020), §III-A, "Edge Attention Module"; widths as in the released network.

    Args:
        channels: Width of the edge features that every reverse-attention module reuses.
        num_logits: Number of foreground classes: one edge map each.
        axes: Which spatial axes are convolved.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_logits: int,
        *,
        style: ConvStyle,
        axes: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        axes = tuple(axes) if axes is not None else (True,) * style.spatial_dims
        three = kernel_on_axes(3, axes)
        self.features = nn.Sequential(
            ConvNorm(in_channels, channels, kernel_on_axes(1, axes), style=style),
            ConvNorm(channels, channels, three, style=style),
            ConvNorm(channels, channels, three, style=style),
        )
        self.seg_layers = logits_layer(channels, num_logits, three, style=style)

    def forward(self, f2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Edge features (B, channels, *spatial) and edge logits (B, num_logits, *spatial)."""
        features = self.features(f2)
        return features, self.seg_layers[0](features)
