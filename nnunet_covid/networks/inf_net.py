"""Inf-Net on any encoder that returns a list of features, and the scales at which its paper trains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from nnunet_covid.networks.conv import ConvNorm, resize_like
from nnunet_covid.networks.encoder_description import EncoderDescription, select_stages
from nnunet_covid.networks.inf_net_modules import (
    DeepestFeatureHead,
    EdgeAttention,
    PartialDecoderHead,
    ReverseAttention,
)


def scaled_size(size: int, scale: float, multiple: int) -> int:
    """``size * scale`` rounded to the nearest multiple, at least one multiple."""
    return max(multiple, round(size * scale / multiple) * multiple)


def scaled_pair(
    data: torch.Tensor, target: torch.Tensor, scale: float, multiple: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and target resized by ``scale``, sides rounded to a multiple of the encoder's total stride.

    Source: Inf-Net (Fan et al., TMI 2020), §III-D: scales 0.75, 1 and 1.25, rounded to 32.

    Args:
        data: (B, C, H, W), resized linearly.
        target: (B, T, H, W), label maps or regions of any type, resized by nearest neighbour.
    """
    size = [scaled_size(s, scale, multiple) for s in data.shape[2:]]
    if list(data.shape[2:]) == size:
        return data, target
    data = functional.interpolate(data, size=size, mode="bilinear", align_corners=False)
    resized = functional.interpolate(target.float(), size=size, mode="nearest-exact")
    return data, resized.to(target.dtype)


Output = Literal["stride8", "full"]
OUTPUTS = ("stride8", "full")
DeeperStages = Literal["drop", "merge"]
DEEPER_STAGES = ("drop", "merge")


@dataclass(frozen=True)
class InfNetWidths:
    """Channel numbers of the modules; the defaults are the paper's."""

    partial_decoder: int = 32
    edge: int = 64
    reverse: int = 64
    reverse_deepest: int = 256

    @classmethod
    def following(cls, edge_stage: int, deepest_stage: int) -> InfNetWidths:
        """Widths in proportion to the channels of a planned encoder's edge stage and of its stage for f5."""
        return cls(
            partial_decoder=max(edge_stage // 4, 4),
            edge=max(edge_stage // 2, 4),
            reverse=max(edge_stage // 2, 4),
            reverse_deepest=max(deepest_stage // 2, 4),
        )


def append_background(logits: torch.Tensor) -> torch.Tensor:
    """Put a background channel of zeros in front, (B, K, *spatial) to (B, K + 1, *spatial).

    Softmax over (0, s) is the sigmoid of s, so one foreground class keeps the paper's probability; with several, the
    label is the class with the largest positive logit, and background where none is positive.
    """
    return torch.cat((torch.zeros_like(logits[:, :1]), logits), dim=1)


def _cascade_step(
    stage: int,
    high: list[int],
    description: EncoderDescription,
    widths: InfNetWidths,
    edge_channels: int,
    num_classes: int,
) -> ReverseAttention:
    """Reverse attention on one feature: on f5 with more and larger convolutions, on what is finer than f3 narrower."""
    channels, at_deepest = description.channels[stage], stage == high[-1]
    width = widths.reverse_deepest if at_deepest else widths.reverse
    if stage < high[0]:
        width = min(width, max(channels // 2, 4))
    return ReverseAttention(
        channels,
        edge_channels,
        width,
        num_classes,
        style=description.style,
        num_convs=3 if at_deepest else 2,
        kernel=5 if at_deepest else 3,
        logits_kernel=1 if at_deepest else 3,
        axes=description.axes[stage],
    )


class InfNetHeads(nn.Module):
    """Edge attention, parallel partial decoder and a cascade of reverse attention on features, wherever these are from.

    Source: Inf-Net (Fan et al., "Inf-Net: Automatic COVID-19 Lung Infection Segmentation from CT Images", TMI 2020).

    Args:
        description: Channels, strides and style of the features.
        num_classes: Number of foreground classes or regions; one logit each.
        widths: Channel numbers; ``None`` lets them follow the encoder.
        output: Where the last map is read: ``"stride8"`` is the paper's S_3, ``"full"`` continues the cascade over the
            remaining shallower features.
        deeper_stages: Features deeper than f5 are not looked at (``"drop"``) or added to f5 (``"merge"``).
        edge_attention, partial_decoder, reverse_attention: The three parts, for ablation. Without the partial decoder
            the global map is a 1×1 convolution on f5; without reverse attention the global map is the last; edge
            attention without reverse attention only supervises f2.
        segmentation: Whether there are any maps; without them edge attention alone is left.

    Raises:
        ValueError: If there are fewer than four features.
    """

    def __init__(self, description: EncoderDescription, num_classes: int, **parts: Any) -> None:
        super().__init__()
        self.build(description, num_classes, **parts)

    def build(
        self,
        description: EncoderDescription,
        num_classes: int,
        *,
        widths: InfNetWidths | None = None,
        output: Output = "stride8",
        deeper_stages: DeeperStages = "drop",
        edge_attention: bool = True,
        partial_decoder: bool = True,
        reverse_attention: bool = True,
        segmentation: bool = True,
    ) -> None:
        """Make the parts, of the arguments of the class."""
        channels, axes, style = description.channels, description.axes, description.style
        edge_stage, *high = select_stages(description.in_plane_strides)
        deepest = high[-1]
        widths = widths or InfNetWidths.following(channels[edge_stage], channels[deepest])
        self.edge_stage = edge_stage
        self.high_stages = tuple(high)

        merged = range(deepest + 1, len(channels)) if deeper_stages == "merge" and segmentation else ()
        self.deeper_stages = tuple(merged)
        self.deeper = nn.ModuleList(
            ConvNorm(channels[i], channels[deepest], (1,) * style.spatial_dims, style=style) for i in merged
        )

        self.edge_attention = (
            EdgeAttention(channels[edge_stage], widths.edge, num_classes, style=style, axes=axes[edge_stage])
            if edge_attention
            else None
        )
        self.global_map: nn.Module | None = None
        if segmentation and partial_decoder:
            self.global_map = PartialDecoderHead(
                [channels[i] for i in high],
                widths.partial_decoder,
                num_classes,
                style=style,
                axes=[axes[i] for i in high],
            )
        elif segmentation:
            self.global_map = DeepestFeatureHead(channels[deepest], num_classes, style=style)

        # deep to shallow: f5, f4, f3 and, for full resolution, whatever is finer than f3
        self.cascade_stages: tuple[int, ...] = ()
        if reverse_attention and segmentation:
            finer = range(high[0] - 1, -1, -1) if output == "full" else ()
            self.cascade_stages = (*reversed(high), *finer)
        edge_channels = widths.edge if edge_attention else 0
        self.cascade = nn.ModuleList(
            _cascade_step(stage, high, description, widths, edge_channels, num_classes) for stage in self.cascade_stages
        )

    def read(
        self, features: Sequence[torch.Tensor], *, supervised: bool = True
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """The maps of features (B, C, *spatial), shallow to deep.

        Args:
            features: As described.
            supervised: Whether edge logits are wanted; without it they are left out where nothing else needs them.

        Returns:
            Segmentation logits from coarse to fine, S_g first, each at the size of its feature; and the edge logits.
        """
        features = list(features)
        deepest = self.high_stages[-1]
        for stage, project in zip(self.deeper_stages, self.deeper, strict=True):
            features[deepest] = features[deepest] + resize_like(project(features[stage]), features[deepest])

        edge_features, edge_logits = None, None
        if self.edge_attention is not None and (supervised or self.cascade_stages):
            edge_features, edge_logits = self.edge_attention(features[self.edge_stage])

        maps = [] if self.global_map is None else [self.global_map(*(features[i] for i in self.high_stages))]
        for stage, step in zip(self.cascade_stages, self.cascade, strict=True):
            maps.append(step(features[stage], maps[-1], edge_features))
        return maps, edge_logits


class InfNet(InfNetHeads):
    """Inf-Net on the features of an encoder.

    Args:
        encoder: Maps (B, C, *spatial) to a list of features, shallow to deep.
        description: Of those features.
        num_classes: Number of foreground classes or regions; one logit each.
        background: Put a background channel in front of the result (label maps with softmax, as nnU-Net wants
            them); without it the channels are sigmoid regions.
        deep_supervision: Return all maps for the loss instead of the result alone.
        parts: As for :class:`InfNetHeads`; features deeper than f5 are not computed where they are dropped.
    """

    def __init__(
        self,
        encoder: nn.Module,
        description: EncoderDescription,
        num_classes: int,
        *,
        background: bool = True,
        deep_supervision: bool = True,
        **parts: Any,
    ) -> None:
        nn.Module.__init__(self)
        self.encoder = encoder  # the first, since optimisers in checkpoints know parameters by their order
        self.build(description, num_classes, **parts)
        self.background = background
        self.deep_supervision = deep_supervision

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits of an image (B, C, *spatial).

        Returns:
            The result (B, heads, *spatial), heads being ``num_classes`` plus one with ``background``. With deep
            supervision a list of maps of the image's size: the result, the other segmentation maps from fine to
            coarse (..., S_4, S_5, S_g), and last, with edge attention, the edge logits.
        """
        maps, edge_logits = self.read(self.encoder(x), supervised=self.deep_supervision)
        result = resize_like(maps[-1], x)
        if self.background:
            result = append_background(result)
        if not self.deep_supervision:
            return result
        others = [*reversed(maps[:-1]), *([edge_logits] if edge_logits is not None else [])]
        return [result, *(resize_like(m, x) for m in others)]
