"""The receptive-field block that precedes the parallel partial decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_covid.networks.conv import ConvNorm, ConvStyle, kernel_on_axes

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
