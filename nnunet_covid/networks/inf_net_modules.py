"""The modules of Inf-Net: receptive-field blocks, parallel partial decoder, edge attention and reverse attention.

How they are joined stands in :mod:`nnunet_covid.networks.inf_net`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.networks.conv import ConvNorm, ConvStyle, kernel_on_axes, logits_layer, resize_like

BRANCH_SIZES = (3, 5, 7)


class ReceptiveFieldBlock(nn.Module):
    r"""Four branches of growing receptive field, concatenated, plus a residual.

    .. math:: y = \mathrm{ReLU}\bigl(C_3([b_0, b_3, b_5, b_7]) + C_1(x)\bigr)

    :math:`b_0` is a 1×1 convolution; :math:`b_n` goes on with 1×n, n×1 and a 3×3 dilated by n. In 3D there is one
    one-axis convolution per axis, and axes on which the stage does not convolve (anisotropic plans) are left alone.

    Source: Liu et al., "Receptive Field Block Net", ECCV 2018, in the form used by Wu et al., "Cascaded Partial
    Decoder", CVPR 2019, and Inf-Net.

    Args:
        axes: Which spatial axes are convolved.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: ConvStyle, axes: Sequence[bool] | None = None
    ) -> None:
        super().__init__()
        axes = tuple(axes) if axes is not None else (True,) * style.spatial_dims
        pointwise = kernel_on_axes(1, axes)
        three = kernel_on_axes(3, axes)
        self.pointwise = ConvNorm(in_channels, out_channels, pointwise, style=style)
        self.branches = nn.ModuleList(_branch(in_channels, out_channels, size, axes, style) for size in BRANCH_SIZES)
        self.merge = ConvNorm((1 + len(BRANCH_SIZES)) * out_channels, out_channels, three, style=style)
        self.residual = ConvNorm(in_channels, out_channels, pointwise, style=style)
        self.nonlinearity = style.nonlinearity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.pointwise(x), *(branch(x) for branch in self.branches)]
        return self.nonlinearity(self.merge(torch.cat(branches, dim=1)) + self.residual(x))


def _branch(in_channels: int, out_channels: int, size: int, axes: Sequence[bool], style: ConvStyle) -> nn.Sequential:
    layers = [ConvNorm(in_channels, out_channels, kernel_on_axes(1, axes), style=style)]
    for axis in reversed(range(len(axes))):
        if axes[axis]:
            one_axis = [a == axis for a in range(len(axes))]
            layers.append(ConvNorm(out_channels, out_channels, kernel_on_axes(size, one_axis), style=style))
    dilation = tuple(size if chosen else 1 for chosen in axes)
    layers.append(ConvNorm(out_channels, out_channels, kernel_on_axes(3, axes), style=style, dilation=dilation))
    return nn.Sequential(*layers)


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
