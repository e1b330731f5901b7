"""Any timm encoder as a list of features, for one grey channel or many, and where its weights come from."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from nnunet_covid.networks.conv import PAPER_STYLE
from nnunet_covid.networks.encoder_description import EncoderDescription


class TimmEncoder(nn.Module):
    """A timm ``features_only`` encoder (2D).

    A grey image is given as one channel: the first convolution is built for it, and weights of a three-channel model
    are summed over the colours when they are loaded, which equals three equal channels at a third of the cost.

    Args:
        name: A model name of timm, for example ``res2net50d``.
        in_channels: Channels of the image.

    Raises:
        ValueError: If timm does not know the name or the model has no feature pyramid.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        try:
            self.model = timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=False)
        except (RuntimeError, AttributeError, TypeError) as e:
            msg = f"timm has no encoder '{name}' with a feature pyramid ({e}); see timm.list_models()"
            raise ValueError(msg) from e
        self.name = name

    @property
    def description(self) -> EncoderDescription:
        """Channels and strides as timm states them; batch normalisation and ReLU as in the paper."""
        info: Any = self.model.feature_info
        strides = tuple((int(r), int(r)) for r in info.reduction())
        return EncoderDescription(
            channels=tuple(info.channels()),
            strides=strides,
            axes=((True, True),) * len(strides),
            style=PAPER_STYLE,
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of an image (B, in_channels, H, W), shallow to deep."""
        return self.model(x)
