"""The parallel partial decoder: a global map from the three deepest features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.networks.conv import ConvNorm, ConvStyle, logits_layer, resize_like
from nnunet_covid.networks.receptive_field_block import ReceptiveFieldBlock


class ParallelPartialDecoder(nn.Module):
    r"""Dense multiplicative aggregation of three features of equal width, :math:`S_g = p_d(f_3, f_4, f_5)`.

    With :math:`u` for "resized to the shallower map, then convolved":

    .. math::
        p_4 &= u(f_5) \odot f_4, \quad p_3 = u(f_5) \odot u(f_4) \odot f_3 \\
        q_4 &= C([p_4, u(f_5)]), \quad q_3 = C([p_3, u(q_4)]) \\
        S_g &= C_{1}(C(q_3))

    Source: Inf-Net (Fan et al., TMI 2020), §III-A and Fig. 3; Wu et al., "Cascaded Partial Decoder", CVPR 2019.

    Args:
        channels: Width of each of the three inputs.
        num_logits: Number of foreground classes.
    """

    def __init__(self, channels: int, num_logits: int, *, style: ConvStyle) -> None:
        super().__init__()
        dims = style.spatial_dims
        three, one = (3,) * dims, (1,) * dims

        def conv(width: int) -> ConvNorm:
            return ConvNorm(width, width, three, style=style)

        self.f5_to_product4 = conv(channels)
        self.f5_to_product3 = conv(channels)
        self.f4_to_product3 = conv(channels)
        self.f5_to_concat4 = conv(channels)
        self.concat4_to_concat3 = conv(2 * channels)
        self.concat4 = conv(2 * channels)
        self.concat3 = conv(3 * channels)
        self.last = conv(3 * channels)
        # the one logit layer without normalisation in the paper's network as well
        self.seg_layers = nn.ModuleList([style.conv(3 * channels, num_logits, kernel_size=one)])

    def forward(self, f3: torch.Tensor, f4: torch.Tensor, f5: torch.Tensor) -> torch.Tensor:
        """Features from shallow to deep, each (B, channels, *spatial); logits (B, num_logits, *spatial of f3)."""
        f5_at_4 = resize_like(f5, f4)
        f5_at_3 = resize_like(f5_at_4, f3)
        f4_at_3 = resize_like(f4, f3)

        product4 = self.f5_to_product4(f5_at_4) * f4
        product3 = self.f5_to_product3(f5_at_3) * self.f4_to_product3(f4_at_3) * f3

        concat4 = self.concat4(torch.cat((product4, self.f5_to_concat4(f5_at_4)), dim=1))
        concat4_at_3 = self.concat4_to_concat3(resize_like(concat4, f3))
        concat3 = self.concat3(torch.cat((product3, concat4_at_3), dim=1))
        return self.seg_layers[0](self.last(concat3))


class PartialDecoderHead(nn.Module):
    """A receptive-field block on each of f3, f4, f5, then the parallel partial decoder.

    Args:
        in_channels: Channels of f3, f4, f5.
        channels: Width of the partial decoder.
        axes: For each of the three features the spatial axes along which it is convolved.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_logits: int,
        *,
        style: ConvStyle,
        axes: Sequence[Sequence[bool]],
    ) -> None:
        super().__init__()
        self.receptive_field_blocks = nn.ModuleList(
            ReceptiveFieldBlock(c, channels, style=style, axes=a) for c, a in zip(in_channels, axes, strict=True)
        )
        self.decoder = ParallelPartialDecoder(channels, num_logits, style=style)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """f3, f4, f5, each (B, in_channels[i], *spatial); logits (B, num_logits, *spatial of f3)."""
        blocks = zip(self.receptive_field_blocks, features, strict=True)
        return self.decoder(*(block(feature) for block, feature in blocks))


class DeepestFeatureHead(nn.Module):
    """The global map without a partial decoder: one 1×1 convolution on f5 (rows of the ablation study)."""

    def __init__(self, in_channels: int, num_logits: int, *, style: ConvStyle) -> None:
        super().__init__()
        self.seg_layers = logits_layer(in_channels, num_logits, (1,) * style.spatial_dims, style=style)

    def forward(self, f3: torch.Tensor, f4: torch.Tensor, f5: torch.Tensor) -> torch.Tensor:
        """f3 and f4 are not looked at; logits (B, num_logits, *spatial of f5)."""
        return self.seg_layers[0](f5)
