"""SSA-Net: spatial convolution at the bottleneck of a U-Net whose encoder distils its own attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nnunet_covid.networks.conv import SupervisedByDecoder, resize_like
from nnunet_covid.networks.encoder_description import select_stages
from nnunet_covid.networks.spatial_convolution import SpatialConvolution
from nnunet_covid.networks.timm_encoder import TimmEncoder

PAPER_STRIDES = (4, 8, 16, 32)
"""Strides of the four residual stages whose attention the paper distils."""


def require_two_stages(number: int) -> None:
    """Distillation needs a pair of stages, and a decoder something to decode.

    Raises:
        ValueError: If there is only one stage.
    """
    if number < 2:
        msg = f"SSA-Net needs an encoder with at least two stages, but this one has {number}"
        raise ValueError(msg)


def distilled_stages(in_plane_strides: Sequence[int]) -> tuple[int, ...]:
    """The encoder stages that learn from each other: those nearest to the paper's strides, or all if there are fewer.

    Raises:
        ValueError: If there is only one stage.
    """
    require_two_stages(len(in_plane_strides))
    if len(in_plane_strides) <= len(PAPER_STRIDES):
        return tuple(range(len(in_plane_strides)))
    return select_stages(in_plane_strides, PAPER_STRIDES)


class SSANet(SupervisedByDecoder):
    """Any encoder and any U-Net decoder with a spatial convolution between them.

    Source: SSA-Net (Wang et al., Medical Image Analysis 2022), §3.1.

    Args:
        encoder: Maps (B, C, *spatial) to a list of features, shallow to deep.
        decoder: Maps that list to logits; a list of them, fine to coarse, where its ``deep_supervision`` is true.
        stages: Which features distil their attention.
        spatial_convolution: Between the deepest feature and the decoder; ``None`` leaves it out.
        distillation: Return those features after the logits where ``deep_supervision`` is true.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        stages: Sequence[int],
        *,
        spatial_convolution: SpatialConvolution | None,
        distillation: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder: Any = decoder
        self.stages = tuple(stages)
        self.spatial_convolution = spatial_convolution
        self.distillation = distillation

    def stage_features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The features A_m whose attention is distilled, shallow to deep, of an image (B, C, *spatial)."""
        features = self.encoder(x)
        return [features[i] for i in self.stages]

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits of an image (B, C, *spatial).

        Returns:
            The result (B, heads, *spatial). With deep supervision a list: the decoder's maps, the result first, and
            after them, with distillation, the features A_m.
        """
        features = list(self.encoder(x))
        deepest = features[-1]
        if self.spatial_convolution is not None:
            deepest = self.spatial_convolution(deepest)
        maps = self.decoder([*features[:-1], deepest])
        if not self.deep_supervision:
            return maps
        return [*maps, *(features[i] for i in self.stages if self.distillation)]


class DecoderBlock(nn.Sequential):
    """1×1 convolution, 3×3 transposed convolution with stride 2, 1×1 convolution, each with batch norm and ReLU.

    Source: SSA-Net, §3.1.3; the width in between is a quarter of the input's, as in the released code.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        width = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SSANetDecoder(nn.Module):
    """The paper's decoder: four blocks, skips added, and three convolutions to full resolution.

    Source: SSA-Net, Fig. 2 and §3.1.3; the figure concatenates the skips, the released code adds them, as here.

    Args:
        channels: Of the encoder's features at strides 2, 4, 8, 16 and 32; the first is not used.
        num_heads: Number of logits.
    """

    WIDTH = 32

    def __init__(self, channels: Sequence[int], num_heads: int, *, deep_supervision: bool = True) -> None:
        super().__init__()
        if len(channels) != len(PAPER_STRIDES) + 1:
            msg = f"the paper's decoder needs features at strides 2, 4, 8, 16 and 32, not {len(channels)} features"
            raise ValueError(msg)
        self.deep_supervision = deep_supervision
        deep_to_shallow = list(channels[:0:-1])
        outputs = [*deep_to_shallow[1:], deep_to_shallow[-1]]
        self.blocks = nn.ModuleList(DecoderBlock(i, o) for i, o in zip(deep_to_shallow, outputs, strict=True))
        self.last = nn.Sequential(
            nn.ConvTranspose2d(outputs[-1], self.WIDTH, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.WIDTH, self.WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.seg_layers = nn.ModuleList([nn.Conv2d(self.WIDTH, num_heads, 3, padding=1)])

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Logits at the size of the first feature times two; in a list with deep supervision."""
        half, *skips = features
        x = skips.pop()
        for block in self.blocks:
            x = block(x)
            skip = skips.pop() if skips else None
            target = half if skip is None else skip
            x = x[..., : target.shape[2], : target.shape[3]]
            x = x if skip is None else x + skip
        logits = self.seg_layers[0](self.last(x))
        return [logits] if self.deep_supervision else logits


class SSANetPaper(SSANet):
    """The paper's own network: a timm ResNet34, spatial convolution and the paper's decoder; 2D.

    Args:
        encoder: With features at strides 2, 4, 8, 16 and 32.
        num_heads: Number of logits.
        kernel: Of the spatial convolution; ``None`` leaves it out.
        distillation: Return the four stages after the logits where deep supervision is on.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        num_heads: int,
        *,
        kernel: int | None,
        distillation: bool = True,
        deep_supervision: bool = True,
    ) -> None:
        channels = encoder.description.channels
        super().__init__(
            encoder,
            SSANetDecoder(channels, num_heads, deep_supervision=deep_supervision),
            range(1, len(channels)),
            spatial_convolution=None if kernel is None else SpatialConvolution(channels[-1], kernel=kernel),
            distillation=distillation,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """As :class:`SSANet`; an image side that is no multiple of the strides is met by shape."""
        outputs = super().forward(x)
        if isinstance(outputs, torch.Tensor):
            return resize_like(outputs, x)
        return [resize_like(outputs[0], x), *outputs[1:]]
