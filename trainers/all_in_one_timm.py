"""All in one on a timm encoder, the same rows as in :mod:`nnunet_covid.trainers.all_in_one`."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_covid.networks.timm_unet import TimmUNet
from nnunet_covid.nnunet.trainer_names import TRAINERS
from nnunet_covid.trainers import all_in_one
from nnunet_covid.trainers.base import LITE0, TimmWeightsTrainer


class OnTimm(TimmWeightsTrainer):
    """In front of a row: EfficientNet-Lite0 with ImageNet weights and the schedule of ``UNetPretrainedTrainer``; 2D."""

    encoder_name, encoder_weights = LITE0
    otherwise = "the trainer of the same name without 'Pretrained'"
    optimizer_name = "adamw"
    learning_rate = 1e-3
    regularisation = 1e-2

    @classmethod
    def in_plane_strides(cls, configuration: ConfigurationManager) -> list[int]:
        """Of the encoder's stages and of the full resolution, which the maps go on to."""
        return TimmUNet(cls.timm_encoder(), 1, 1).description.in_plane_strides

    @classmethod
    def build_unet(
        cls, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> tuple[nn.Module, Any]:
        """The U-Net of ``UNetPretrainedTrainer``."""
        unet = TimmUNet(cls.timm_encoder(channels), channels, heads, deep_supervision=deep_supervision)
        return unet, cls.timm_encoder

    def initialize(self) -> None:
        """Both encoders start from the same weights, where the general one has none of its own."""
        super().initialize()
        general = getattr(self.bare_network, "general_encoder", None)
        begins = general is not None and self.encoder_weights is not None and not self.trained_before
        if begins and self.general_checkpoint() is None:
            general.load_state_dict(self.bare_network.encoder.state_dict())

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return TimmUNet.scales(self.timm_encoder()) if self.enable_deep_supervision else None


def _on_timm(name: str) -> type:
    """The row of this name without "Pretrained", on a timm encoder."""
    row = getattr(all_in_one, name.replace("Pretrained", ""))
    return type(name, (OnTimm, row), {"__doc__": row.__doc__, "__module__": __name__})


globals().update({name: _on_timm(name) for name, module in TRAINERS.items() if module == "all_in_one_timm"})
