"""Reverse attention: look where the deeper map saw nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.networks.conv import ConvNorm, ConvStyle, kernel_on_axes, logits_layer, resize_like


def reverse_attention_weight(deeper_logits: torch.Tensor) -> torch.Tensor:
    r"""Weight :math:`A = 1 - \max_k \sigma(S_k)`, eq. (3) of Inf-Net, for one class exactly the paper's.

    With several classes (or overlapping regions) a place is erased where any of them was found.

    Args:
        deeper_logits: (B, classes, *spatial), already resized to the feature that is to be weighted.

    Returns:
        (B, 1, *spatial); multiplying broadcasts it over the channels.
    """
    return 1 - torch.sigmoid(deeper_logits.amax(dim=1, keepdim=True))


class ReverseAttention(nn.Module):
    r"""One step of the cascade.

    .. math:: R_i = C(f_i \odot A_i, \mathrm{Dow}(e_{att})), \qquad S_i = \mathrm{conv}(R_i) + \mathrm{up}(S_{i+1})

    Source: Inf-Net (Fan et al., TMI 2020), eqs. (2) and (3), eq. (2) as its authors corrected it: the weight
    multiplies the feature before the concatenation.

    Args:
        in_channels: Channels of f_i.
        edge_channels: Channels of the edge features; 0 leaves them out (rows of the ablation study).
        channels: Width of the module.
        num_convs: Convolutions between the concatenation and the logits.
        kernel: Size of those convolutions (5 at stride 32 in the paper, 3 elsewhere).
        logits_kernel: Size of the last convolution (1 at stride 32 in the paper, 3 elsewhere).
        axes: Which spatial axes are convolved.
    """

    def __init__(
        self,
        in_channels: int,
        edge_channels: int,
        channels: int,
        num_logits: int,
        *,
        style: ConvStyle,
        num_convs: int = 2,
        kernel: int = 3,
        logits_kernel: int = 3,
        axes: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        axes = tuple(axes) if axes is not None else (True,) * style.spatial_dims
        self.reduce = ConvNorm(in_channels, channels, kernel_on_axes(1, axes), style=style)
        widths = [channels + edge_channels] + [channels] * num_convs
        self.convs = nn.Sequential(
            *(
                ConvNorm(widths[i], widths[i + 1], kernel_on_axes(kernel, axes), style=style, nonlinearity=True)
                for i in range(num_convs)
            )
        )
        self.seg_layers = logits_layer(channels, num_logits, kernel_on_axes(logits_kernel, axes), style=style)

    def forward(
        self, feature: torch.Tensor, deeper_logits: torch.Tensor, edge_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits (B, num_logits, *spatial of feature).

        Args:
            feature: f_i (B, in_channels, *spatial).
            deeper_logits: S_{i+1}, any spatial size.
            edge_features: e_att, any spatial size; ``None`` where ``edge_channels`` is 0.
        """
        guide = resize_like(deeper_logits, feature)
        # A pointwise convolution without bias commutes with a weight that is the same for all channels; weighting its
        # (narrow) output instead of its (wide) input spares one tensor of the size of f_i.
        pointwise, norm = self.reduce
        weighted = norm(pointwise(feature) * reverse_attention_weight(guide))
        if edge_features is not None:
            weighted = torch.cat((weighted, resize_like(edge_features, feature)), dim=1)
        return self.seg_layers[0](self.convs(weighted)) + guide
