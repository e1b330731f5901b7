"""Inf-Net on the encoder that nnU-Net plans, and the rows of its ablation study."""

from __future__ import annotations

from typing import Any, Literal

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.losses.inf_net import MAP_WEIGHTS, PIXEL_WEIGHTS, InfNetLoss, MapWeights, PixelWeight
from nnunet_covid.networks.encoder_description import describe_planned_encoder, select_stages
from nnunet_covid.networks.inf_net import DEEPER_STAGES, OUTPUTS, DeeperStages, InfNet, Output
from nnunet_covid.nnunet.architecture import (
    build_planned_unet,
    has_background_head,
    planned_edge_axes,
    planned_in_plane_strides,
    truncated_encoder,
)
from nnunet_covid.nnunet.training import OneHotTarget, map_loss
from nnunet_covid.trainers.base import LungInfectionTrainer, one_of

SegmentationLoss = Literal["structure", "dice", "dice_ce"]
SEGMENTATION_LOSSES = ("structure", "dice", "dice_ce")


class InfNetTrainer(LungInfectionTrainer):
    """Inf-Net (Fan et al., TMI 2020) with nnU-Net's planned encoder and nnU-Net's schedule, in 2D and 3D.

    Attributes:
        output: ``"full"`` continues the reverse-attention cascade over the remaining stages to full resolution;
            ``"stride8"`` reads the result where the paper does.
        deeper_stages: What happens to planned stages deeper than stride 32, ``"drop"`` or ``"merge"``.
        edge_attention, partial_decoder, reverse_attention: The parts of the network.
        segmentation_loss: ``"structure"``, eq. (4); ``"dice"``, or nnU-Net's own ``"dice_ce"``, in its place.
        bce_weight: λ, the weight of the cross entropy beside the IoU loss.
        pixel_weight: ``"paper"``, or ``"label_free"``: one that does not depend on the voxel's own label.
        plain_bce: Leave that weight to the IoU loss, as the released code does.
        map_weights: ``"sum"`` of the losses of all maps, as eq. (5) has it; their ``"mean"``; or ``"halving"`` from the
            result to the global map, as nnU-Net weighs its maps.
    """

    output: Output = "full"
    deeper_stages: DeeperStages = "drop"
    edge_attention: bool = True
    partial_decoder: bool = True
    reverse_attention: bool = True
    segmentation_loss: SegmentationLoss = "structure"
    bce_weight: float = 1.0
    pixel_weight: PixelWeight = "paper"
    plain_bce: bool = False
    map_weights: MapWeights = "sum"

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        one_of("output", self.output, OUTPUTS)
        one_of("deeper_stages", self.deeper_stages, DEEPER_STAGES)
        one_of("segmentation_loss", self.segmentation_loss, SEGMENTATION_LOSSES)
        one_of("pixel_weight", self.pixel_weight, PIXEL_WEIGHTS)
        one_of("map_weights", self.map_weights, MAP_WEIGHTS)
        self.check_encoder(configuration)

    def check_encoder(self, configuration: ConfigurationManager) -> None:
        """Are there enough stages?"""
        try:
            select_stages(planned_in_plane_strides(configuration))
        except ValueError as e:
            msg = f"{e}. Plan a larger patch, or train with nnUNetTrainer"
            raise ValueError(msg) from e

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network of the class attributes; nnU-Net calls this for training and for prediction."""
        unet = build_planned_unet(configuration, channels, heads)
        encoder = unet.encoder
        if cls.deeper_stages == "drop":
            deepest = select_stages(describe_planned_encoder(encoder).in_plane_strides)[-1]
            encoder = truncated_encoder(encoder, deepest + 1)
        network = cls.build_heads(
            encoder,
            describe_planned_encoder(encoder),
            heads,
            background=has_background_head(plans),
            deep_supervision=deep_supervision,
        )
        for name, module in network.named_children():
            if name != "encoder":
                module.apply(unet.initialize)
        return network

    @classmethod
    def build_heads(
        cls, encoder: nn.Module, description: Any, num_heads: int, *, background: bool, **kwargs: Any
    ) -> InfNet:
        """Inf-Net on any encoder, with the parts that the class attributes ask for."""
        return InfNet(
            encoder,
            description,
            num_heads - int(background),
            background=background,
            output=cls.output,
            deeper_stages=cls.deeper_stages,
            edge_attention=cls.edge_attention,
            partial_decoder=cls.partial_decoder,
            reverse_attention=cls.reverse_attention,
            **kwargs,
        )

    def _build_loss(self) -> nn.Module:
        return InfNetLoss(
            OneHotTarget(self.label_manager),
            background=not self.label_manager.has_regions,
            edge=self.edge_attention,
            bce_weight=self.bce_weight,
            pixel_weight=self.pixel_weight,
            plain_bce=self.plain_bce,
            weights=self.map_weights,
            edge_axes=planned_edge_axes(self.configuration_manager),
            segmentation=self._map_loss(),
        )

    def _map_loss(self) -> nn.Module | None:
        if self.segmentation_loss == "structure":
            return None
        batch_dice = self.configuration_manager.batch_dice
        return map_loss(self.segmentation_loss, self.label_manager, batch_dice=batch_dice, ddp=self.is_ddp)


class InfNetStride8Trainer(InfNetTrainer):
    """The result read at stride 8, as in the paper."""

    output = "stride8"


class InfNetMergeDeeperTrainer(InfNetTrainer):
    """Planned stages deeper than stride 32 added to f5."""

    deeper_stages = "merge"


# What the loss is worth, a row each.


class InfNetLabelFreeTrainer(InfNetTrainer):
    """A pixel weight that does not depend on the voxel's own label."""

    pixel_weight = "label_free"


class InfNetPlainBCETrainer(InfNetTrainer):
    """The released code's cross entropy, without the pixel weight."""

    plain_bce = True


class InfNetMeanMapsTrainer(InfNetTrainer):
    """The losses of the maps averaged instead of summed."""

    map_weights = "mean"


class InfNetHalvingMapsTrainer(InfNetTrainer):
    """The losses of the maps weighted as nnU-Net weighs its own, the result first."""

    map_weights = "halving"


class InfNetBalancedTrainer(InfNetTrainer):
    """Both: a label-free pixel weight and halving weights of the maps."""

    pixel_weight = "label_free"
    map_weights = "halving"


class InfNetDiceTrainer(InfNetTrainer):
    """Dice alone on every map."""

    segmentation_loss = "dice"


class InfNetDiceCETrainer(InfNetTrainer):
    """nnU-Net's own loss on every map, weighted as nnU-Net weighs them: Inf-Net's network alone is what differs."""

    segmentation_loss = "dice_ce"
    map_weights = "halving"


# Parts as in the rows of Table IV (Fan et al., TMI 2020), whose figures are semi-supervised: row 7, everything, has
# that of Semi-Inf-Net. Trained on labelled images alone, everything is InfNetTrainer.


class InfNetTrainerBackbone(InfNetTrainer):
    """Row 1: one 1×1 convolution on f5."""

    edge_attention = partial_decoder = reverse_attention = False


class InfNetTrainerEA(InfNetTrainer):
    """Row 2: backbone and edge attention."""

    partial_decoder = reverse_attention = False


class InfNetTrainerPPD(InfNetTrainer):
    """Row 3: backbone and parallel partial decoder."""

    edge_attention = reverse_attention = False


class InfNetTrainerRA(InfNetTrainer):
    """Row 4: backbone and reverse attention."""

    edge_attention = partial_decoder = False


class InfNetTrainerRAEA(InfNetTrainer):
    """Row 5: backbone, reverse attention and edge attention."""

    partial_decoder = False


class InfNetTrainerPPDRA(InfNetTrainer):
    """Row 6: backbone, parallel partial decoder and reverse attention."""

    edge_attention = False
