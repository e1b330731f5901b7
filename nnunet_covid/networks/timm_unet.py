"""A plain U-Net decoder on any timm encoder: what pre-training alone is worth."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn
from torch.nn import functional

from nnunet_covid.networks.conv import ConvStyle, SupervisedByDecoder, module_from
from nnunet_covid.networks.encoder_description import EncoderDescription
from nnunet_covid.networks.timm_encoder import TimmEncoder

FULL_RESOLUTION_CHANNELS = 16
"""Width of the two convolutions at full resolution, where timm's encoders have no feature."""
CONVOLUTIONS = 2
"""Per stage of the decoder, as nnU-Net plans them."""
STYLE: dict[str, Any] = {
    "conv_op": nn.Conv2d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm2d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}
"""What nnU-Net plans for 2D."""


class TimmUNet(SupervisedByDecoder):
    """A timm encoder, two convolutions on the image at full resolution, and nnU-Net's decoder; 2D.

    An encoder that sees the image enlarged has a feature at full resolution itself, and no convolutions take its place.

    Args:
        encoder: Features at strides 2, 4, 8 and so on, or from 1 on, each twice that of the one before.
        in_channels: Channels of the image.
        num_heads: Number of logits.
        deep_supervision: Return a map per stage of the decoder for the loss.

    Raises:
        ValueError: If the encoder's strides are others.
    """

    def __init__(
        self, encoder: TimmEncoder, in_channels: int, num_heads: int, *, deep_supervision: bool = True
    ) -> None:
        super().__init__()
        description = encoder.description
        strides = [s * encoder.enlargement for s in description.in_plane_strides]
        if strides != [2 ** (i + 1) for i in range(len(strides))]:
            msg = f"a U-Net needs features at strides 2, 4, 8, ..., but '{encoder.name}' has them at {strides}"
            raise ValueError(msg)
        self.encoder = encoder
        self.stride = description.in_plane_strides[-1]
        self.full_resolution: nn.Module | None = None
        if encoder.enlargement == 1:
            self.full_resolution = StackedConvBlocks(
                num_convs=CONVOLUTIONS,
                input_channels=in_channels,
                output_channels=FULL_RESOLUTION_CHANNELS,
                kernel_size=3,
                initial_stride=1,
                **STYLE,
            )
        channels = self.description.channels
        self.decoder: Any = UNetDecoder(
            SimpleNamespace(  # what the decoder asks of an encoder
                output_channels=list(channels),
                strides=[1] + [2] * (len(channels) - 1),
                kernel_sizes=[3] * len(channels),
                **STYLE,
            ),
            num_heads,
            CONVOLUTIONS,
            deep_supervision,
        )
        del self.decoder.encoder  # not a module, and not needed any more
        for module in filter(None, (self.full_resolution, self.decoder)):
            module.apply(self.initialize)

    @staticmethod
    def scales(encoder: TimmEncoder) -> list[list[float]]:
        """Size of the decoder's maps relative to the image, fine to coarse."""
        strides = encoder.description.in_plane_strides[:-1]
        return [[1 / s] * 2 for s in (strides if encoder.enlargement > 1 else [1, *strides])]

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits of an image (B, in_channels, H, W) of any size: (B, num_heads, H, W).

        With deep supervision a list of them, the map at stride s having the size of the image divided by s, rounded.
        """
        size = x.shape[2:]
        x = padded(x, self.stride)
        features = self.encoder(x)
        if self.full_resolution is not None:
            features = [self.full_resolution(x), *features]
        maps = self.decoder(features)
        if isinstance(maps, torch.Tensor):
            return cut(maps, size, 0)
        return [cut(m, size, i) for i, m in enumerate(maps)]

    @property
    def description(self) -> EncoderDescription:
        """Of the features that the decoder is given, the full resolution first; modules beside it look like it."""
        encoder, finest = self.encoder.description, self.full_resolution is not None
        norm, nonlinearity = (module_from(STYLE[kind], STYLE[f"{kind}_kwargs"]) for kind in ("norm_op", "nonlin"))
        return EncoderDescription(
            channels=(FULL_RESOLUTION_CHANNELS,) * finest + encoder.channels,
            strides=((1, 1),) * finest + encoder.strides,
            axes=((True, True),) * finest + encoder.axes,
            style=ConvStyle(2, norm, nonlinearity),
        )

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """As nnU-Net initialises one layer."""
        InitWeights_He(1e-2)(module)


def padded(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """An image (B, C, H, W) with zeros at the far ends, up to a multiple of this many pixels."""
    return functional.pad(x, [p for side in reversed(x.shape[2:]) for p in (0, -side % multiple)])


def cut(m: torch.Tensor, size: Sequence[int], level: int) -> torch.Tensor:
    """The part of a map that the image covers, at the size that nnU-Net gives its target."""
    height, width = (round(side / 2**level) for side in size)
    return m[..., :height, :width]
