"""A U-Net with every idea of this project in it, each of them on or off; what is off is neither held nor computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nnunet_covid.networks.collaborative import CollaborativeUNet
from nnunet_covid.networks.conv import resize_like
from nnunet_covid.networks.encoder_description import EncoderDescription, describe_planned_encoder
from nnunet_covid.networks.inf_net import InfNetHeads, append_background
from nnunet_covid.networks.spatial_convolution import SpatialConvolution
from nnunet_covid.networks.ssa_net import distilled_stages
from nnunet_covid.networks.timm_unet import TimmUNet, cut, padded


class AllInOneUNet(CollaborativeUNet):
    """Encoder and decoder of a U-Net, planned or on a timm encoder, with parts of the three papers between and beside.

    On the way from the encoder to the decoder the deepest feature is joined with that of a general encoder (Zhang et
    al.) and passed through a spatial convolution (SSA-Net). Inf-Net's parts read the same features as the decoder; the
    last of their maps is added to the logits of the decoder's finest one.

    Args:
        unet: A planned U-Net or a :class:`TimmUNet`; with everything off, the network is this one.
        num_heads: Number of logits.
        background: Whether the first of them is the background of a softmax, which Inf-Net's maps do not have.
        general_encoder: Another encoder of the same kind; ``None`` leaves it out.
        general_channels, train_general: As for :class:`CollaborativeUNet`.
        edge_attention, partial_decoder, reverse_attention: As for :class:`InfNetHeads`. Edge attention without reverse
            attention only supervises f2; reverse attention without the partial decoder goes on from a 1×1 convolution.
        kernel: Of the spatial convolution; ``None`` leaves it out.
        distillation: Return the encoder's stages whose attention is distilled.

    Attributes:
        guided: Whether Inf-Net's parts are asked. A pre-training, whose last layer gives images, does without.

    Raises:
        ValueError: If the encoder has too few stages for what is on.
    """

    def __init__(
        self,
        unet: Any,
        num_heads: int,
        *,
        background: bool = True,
        general_encoder: nn.Module | None = None,
        general_channels: int = 1,
        train_general: bool = True,
        edge_attention: bool = False,
        partial_decoder: bool = False,
        reverse_attention: bool = False,
        kernel: int | None = None,
        distillation: bool = False,
    ) -> None:
        super().__init__(unet, general_encoder, general_channels=general_channels, train_general=train_general)
        on_timm = isinstance(unet, TimmUNet)
        self.full_resolution = unet.full_resolution if on_timm else None
        self.stride = unet.stride if on_timm else 1
        self.background = background
        self.guided = True
        description = unet.description if on_timm else describe_planned_encoder(unet.encoder)
        first = int(self.full_resolution is not None)  # the feature at full resolution is not the encoder's
        strides = description.in_plane_strides[first:]
        self.distilled = distilled_stages(strides) if distillation else ()
        joined = _joined(description) if general_encoder is not None else description
        self.spatial_convolution = None
        if kernel is not None:
            self.spatial_convolution = SpatialConvolution(joined.channels[-1], joined.style.spatial_dims, kernel)
        self.inf_net = None
        if edge_attention or partial_decoder or reverse_attention:
            self.inf_net = InfNetHeads(
                joined,
                num_heads - int(background),
                output="full",
                deeper_stages="merge",
                edge_attention=edge_attention,
                partial_decoder=partial_decoder,
                reverse_attention=reverse_attention,
                segmentation=partial_decoder or reverse_attention,
            )
            self.inf_net.apply(unet.initialize)

    def forward(
        self,
        x: torch.Tensor,
        other: torch.Tensor | None = None,
        unlabelled: torch.Tensor | None = None,
        features: bool = False,
    ) -> Any:
        """Logits of images, and in training what the losses look at.

        Args:
            x, other, unlabelled, features: As for :class:`CollaborativeUNet`.

        Returns:
            The result (B, heads, *spatial). With deep supervision a list: the decoder's maps, the result first; then
            Inf-Net's maps from fine to coarse and its edge logits, all of the image's size; then the encoder's
            stages. With ``features`` a pair of this and the bottleneck features.
        """
        size = x.shape[2:]
        x = self._padded(x)
        beside = (image if image is None else self._padded(image) for image in (other, unlabelled))
        own, deepest, bottleneck = self.joined(x, *beside)
        if self.spatial_convolution is not None:
            deepest = self.spatial_convolution(deepest)
        finest = [] if self.full_resolution is None else [self.full_resolution(x)]
        read = [*finest, *own[:-1], deepest]
        supervised = self.deep_supervision
        maps = list(self.decoder(read)) if supervised else [self.decoder(read)]
        guides = self._guides(read, x, supervised=supervised)
        if guides and self._gives_maps:
            maps[0] = maps[0] + guides[0]
        maps, guides = self._cut(maps, size), [self._cut([guide], size)[0] for guide in guides]
        result: Any = [*maps, *guides, *(own[stage] for stage in self.distilled)] if supervised else maps[0]
        return (result, bottleneck) if features else result

    @property
    def _gives_maps(self) -> bool:
        return self.inf_net is not None and self.inf_net.global_map is not None

    def _guides(self, features: list[torch.Tensor], x: torch.Tensor, *, supervised: bool) -> list[torch.Tensor]:
        """Inf-Net's maps from fine to coarse, the first with a background where there is one, and the edge logits."""
        if self.inf_net is None or not self.guided:
            return []
        maps, edges = self.inf_net.read(features, supervised=supervised)
        wanted = maps[::-1] if supervised else maps[-1:]
        guides = [resize_like(m, x) for m in wanted]
        if guides and self.background:
            guides[0] = append_background(guides[0])
        return [*guides, resize_like(edges, x)] if supervised and edges is not None else guides

    def _padded(self, image: torch.Tensor) -> torch.Tensor:
        return padded(image, self.stride) if self.stride > 1 else image

    def _cut(self, maps: list[torch.Tensor], size: Sequence[int]) -> list[torch.Tensor]:
        return [cut(m, size, level) for level, m in enumerate(maps)] if self.stride > 1 else maps


def _joined(description: EncoderDescription) -> EncoderDescription:
    """The same features with twice as many channels in the deepest."""
    *finer, deepest = description.channels
    return replace(description, channels=(*finer, 2 * deepest))
