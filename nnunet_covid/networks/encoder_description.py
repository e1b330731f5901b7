"""What a decoder has to know about an encoder, and which of its stages play which part in Inf-Net."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from nnunet_covid.networks.conv import ConvStyle, module_from

INF_NET_STRIDES = (4, 8, 16, 32)
"""In-plane strides of f2 (edge), f3, f4 and f5 in the paper."""


@dataclass(frozen=True)
class EncoderDescription:
    """Channels, strides and kernels of the features that an encoder returns, from shallow to deep.

    Args:
        channels: One number per feature.
        strides: Cumulative stride of every feature, one number per spatial axis.
        axes: For every feature the spatial axes along which its stage convolves.
        style: Normalisation and nonlinearity for modules that go on from these features.
    """

    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    axes: tuple[tuple[bool, ...], ...]
    style: ConvStyle

    @property
    def in_plane_strides(self) -> list[int]:
        """The larger stride of the last two axes: nnU-Net puts the coarsest axis of a volume first."""
        return [max(stride[-2:]) for stride in self.strides]


def describe_planned_encoder(encoder: Any) -> EncoderDescription:
    """Read the description off a PlainConvEncoder or ResidualEncoder of dynamic_network_architectures."""
    dims = {nn.Conv2d: 2, nn.Conv3d: 3}[encoder.conv_op]
    cumulative = np.cumprod(np.array(encoder.strides), axis=0)
    kernels = [[k] * dims if isinstance(k, int) else list(k) for k in encoder.kernel_sizes]
    return EncoderDescription(
        channels=tuple(encoder.output_channels),
        strides=tuple(tuple(int(s) for s in stride) for stride in cumulative),
        axes=tuple(tuple(size > 1 for size in kernel) for kernel in kernels),
        style=ConvStyle(
            spatial_dims=dims,
            norm=module_from(encoder.norm_op, encoder.norm_op_kwargs),
            nonlinearity=module_from(encoder.nonlin, encoder.nonlin_kwargs),
        ),
    )


def select_stages(in_plane_strides: Sequence[int], wanted: Sequence[int] = INF_NET_STRIDES) -> tuple[int, ...]:
    """The stages whose strides come nearest to the wanted ones, in increasing order.

    Of all increasing choices the one with the smallest sum of :math:`|\\log_2(s / w)|` is taken; among equals the
    one with the finer edge stage.

    Raises:
        ValueError: If there are fewer stages than wanted strides.
    """
    if len(in_plane_strides) < len(wanted):
        msg = (
            f"Inf-Net needs at least {len(wanted)} encoder stages, "
            f"but this encoder has {len(in_plane_strides)} (in-plane strides {list(in_plane_strides)})"
        )
        raise ValueError(msg)

    def distance(choice: tuple[int, ...]) -> float:
        return sum(abs(math.log2(in_plane_strides[i] / w)) for i, w in zip(choice, wanted, strict=True))

    choices = itertools.combinations(range(len(in_plane_strides)), len(wanted))
    return min(choices, key=lambda choice: (round(distance(choice), 6), choice))
