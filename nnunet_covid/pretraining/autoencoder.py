"""The network that a trainer builds, made to reconstruct its input: whose layers learn, and what becomes of them.

A U-Net (planned, residual, SSA-Net's, on a timm encoder) learns as it is, a layer with as many outputs as the image has
channels in the place of the one that segments. Of a network without such a decoder, Inf-Net's, the encoder learns, with
the decoder of the plan beside it, which is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_covid.networks.encoder_description import describe_planned_encoder
from nnunet_covid.networks.timm_encoder import TimmEncoder
from nnunet_covid.networks.timm_unet import TimmUNet
from nnunet_covid.nnunet.architecture import build_planned_unet


class Autoencoder(nn.Module):
    """Image in, image out.

    Args:
        network: A trainer's; its layers are the ones that learn, not copies of them.
        configuration: The plan that it was built from.
        channels: Of the image.
        skips: Whether the decoder sees the encoder's finer features. Without them all that it knows has gone through
            the deepest one.

    Raises:
        ValueError: If the network has no encoder, or a decoder cannot be put on it.
    """

    def __init__(self, network: Any, configuration: ConfigurationManager, channels: int, *, skips: bool) -> None:
        super().__init__()
        self.network = network
        self.stride = _deepest_stride(network)
        self._segmentation: dict[str, torch.Tensor] = {}
        if hasattr(getattr(network, "decoder", None), "seg_layers"):
            self._lend_last_layer(network.decoder, channels)
            self.unet = network
        elif isinstance(network.encoder, TimmEncoder):
            self.unet = TimmUNet(network.encoder, channels, channels, deep_supervision=False)
        else:
            self.unet = _planned_around(network.encoder, configuration, channels)
        if not skips:
            self.unet.decoder.register_forward_pre_hook(_without_skips)

    def _lend_last_layer(self, decoder: Any, channels: int) -> None:
        layer = decoder.seg_layers[-1]
        name = f"decoder.seg_layers.{len(decoder.seg_layers) - 1}."
        self._segmentation = {name + key: value.clone() for key, value in layer.state_dict().items()}
        kind, size = type(layer), (layer.kernel_size, layer.stride, layer.padding)
        decoder.seg_layers[-1] = kind(layer.in_channels, channels, *size).to(layer.weight.device)
        decoder.deep_supervision = False
        if getattr(self.network, "guided", False):  # maps of classes cannot be added to an image
            self.network.guided = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to the same."""
        return self.unet(image)

    def pretrained(self) -> dict[str, torch.Tensor]:
        """Weights of the trainer's network; the layers that segment are as the trainer had initialised them."""
        weights = {**self.network.state_dict(), **self._segmentation}
        return {name: value.detach().cpu() for name, value in weights.items()}


def _deepest_stride(network: Any) -> tuple[int, ...]:
    """Voxels of the image that one position of the deepest feature stands for, along each axis."""
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, TimmEncoder):
        return encoder.description.strides[-1]
    try:
        return describe_planned_encoder(encoder).strides[-1]
    except (AttributeError, KeyError, ValueError) as e:
        msg = f"its network {type(network).__name__} has no planned or timm encoder: choose another trainer"
        raise ValueError(msg) from e


def _planned_around(encoder: Any, configuration: ConfigurationManager, channels: int) -> nn.Module:
    """The planned U-Net of as many stages as the encoder has, with this encoder in it."""
    unet: Any = build_planned_unet(configuration, channels, channels, stages=len(encoder.stages))
    unet.encoder = unet.decoder.encoder = encoder
    encoder.return_skips = True
    return unet


def _without_skips(decoder: nn.Module, arguments: tuple[Sequence[torch.Tensor]]) -> tuple[list[torch.Tensor]]:
    """In front of a decoder: zeros for all features but the deepest."""
    *finer, deepest = arguments[0]
    return ([*(torch.zeros_like(feature) for feature in finer), deepest],)
