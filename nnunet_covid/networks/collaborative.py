"""Two encoders, one decoder: the network of relation-driven collaborative learning, on any planned U-Net."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from nnunet_covid.networks.conv import SupervisedByDecoder


class BottleneckFeatures(NamedTuple):
    """What the relation losses look at, each (B, C, *spatial) at the deepest stage.

    Attributes:
        target_covid: Target encoder on COVID images, labelled ones first.
        general_covid: General encoder on the same images.
        general_other: General encoder on images of other diseases; ``None`` without them.
    """

    target_covid: torch.Tensor
    general_covid: torch.Tensor
    general_other: torch.Tensor | None


class CollaborativeUNet(SupervisedByDecoder):
    """Target and general encoder side by side; their deepest features together enter one decoder.

    Source: Zhang et al., relation-driven collaborative learning, Fig. 2, Tables I and II. Skip connections come from
    the target encoder alone. What the decoder sends back stops at the general encoder's features: the segmentation
    loss updates the target encoder and the decoder only (Algorithm 1, lines 9 to 11).

    Args:
        unet: A U-Net; its encoder becomes the target encoder, its decoder's deepest stage is widened.
        general_encoder: Another encoder of the same kind; ``None`` leaves the U-Net as it is.
        general_channels: The general encoder sees this many of the input's first channels: the images without what
            the previous stage of a cascade has found in them.
        train_general: Whether the general encoder learns. Otherwise it computes no gradients and keeps its weights.

    Raises:
        ValueError: If the decoder does not begin with a transposed convolution of the deepest feature.
    """

    def __init__(
        self, unet: Any, general_encoder: nn.Module | None, *, general_channels: int, train_general: bool = True
    ) -> None:
        super().__init__()
        self.encoder: Any = unet.encoder
        self.general_encoder: Any = general_encoder
        self.decoder: Any = unet.decoder
        self.general_channels = general_channels
        self.train_general = train_general
        if "encoder" in self.decoder._modules:
            del self.decoder.encoder  # nnU-Net's decoder holds its encoder, and would list every weight twice
        if general_encoder is None:
            return
        if not getattr(self.decoder, "transpconvs", None):
            msg = f"the planned decoder {type(self.decoder).__name__} has no transposed convolutions to widen"
            raise ValueError(msg)
        self.decoder.transpconvs[0] = _twice_as_wide(self.decoder.transpconvs[0])
        unet.initialize(self.decoder.transpconvs[0])
        general_encoder.requires_grad_(train_general)

    def forward(
        self,
        x: torch.Tensor,
        other: torch.Tensor | None = None,
        unlabelled: torch.Tensor | None = None,
        features: bool = False,
    ) -> Any:
        """Logits of COVID images, and in training what the relation losses need, with no pass made twice.

        Args:
            x: Labelled COVID images (B, channels, *spatial).
            other: Images of other diseases (B', general_channels, *spatial), for the general encoder.
            unlabelled: Unlabelled COVID images (B'', channels, *spatial), for both encoders, not for the decoder.
            features: Return the features beside the logits.

        Returns:
            Logits (B, heads, *spatial), a list of them with deep supervision; with ``features`` a pair of these and
            :class:`BottleneckFeatures`.
        """
        skips, deepest, bottleneck = self.joined(x, other, unlabelled)
        logits = self.decoder([*skips[:-1], deepest])
        return (logits, bottleneck) if features else logits

    def joined(
        self, x: torch.Tensor, other: torch.Tensor | None = None, unlabelled: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor, BottleneckFeatures | None]:
        """What both encoders make of images as in :meth:`forward`, no pass made twice.

        Returns:
            The target encoder's features of ``x``, shallow to deep; its deepest one with that of the general encoder
            behind it; and what the relation losses look at, ``None`` without a general encoder.
        """
        if self.general_encoder is None:
            own = list(self.encoder(x))
            return own, own[-1], None
        labelled = len(x)
        covid = x if unlabelled is None else torch.cat((x, unlabelled))
        own = list(self.encoder(covid))
        target = own[-1]
        seen = covid[:, : self.general_channels]
        general = self._general(seen if other is None else torch.cat((seen, other)))
        general_covid = general[: len(covid)]

        if unlabelled is not None:
            own = [feature[:labelled] for feature in own]
        deepest = torch.cat((own[-1], general_covid[:labelled].detach()), dim=1)
        return own, deepest, BottleneckFeatures(target, general_covid, None if other is None else general[len(covid) :])

    def _general(self, images: torch.Tensor) -> torch.Tensor:
        if self.train_general and torch.is_grad_enabled():
            return self.general_encoder(images)[-1]
        with torch.no_grad():
            return self.general_encoder(images)[-1]


def _twice_as_wide(layer: Any) -> nn.Module:
    """The same transposed convolution for twice as many input channels, not initialised."""
    return type(layer)(
        2 * layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, bias=layer.bias is not None
    )
