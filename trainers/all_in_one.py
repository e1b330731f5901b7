"""All in one: the planned U-Net with every idea of this project on or off, and the rows of the ablation.

Learning from unlabelled images by consistency is the suffix of any trainer, ``AllInOneTrainer_consistency``.
"""

from __future__ import annotations

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.auxiliary_data.links import Link
from nnunet_covid.losses.all_in_one import GuidedLoss
from nnunet_covid.losses.inf_net import InfNetLoss
from nnunet_covid.losses.ssa_net import SelfAttentionDistillation, SSANetLoss, check_exponent
from nnunet_covid.networks.all_in_one import AllInOneUNet
from nnunet_covid.networks.encoder_description import select_stages
from nnunet_covid.networks.ssa_net import require_two_stages
from nnunet_covid.nnunet.architecture import (
    build_planned_unet,
    has_background_head,
    planned_edge_axes,
    planned_in_plane_strides,
)
from nnunet_covid.nnunet.training import OneHotTarget, map_loss
from nnunet_covid.trainers.base import check_kernels
from nnunet_covid.trainers.collaborative import CollaborativeTrainer
from nnunet_covid.trainers.undisturbed import stop_training


class AllInOneUNetTrainer(CollaborativeTrainer):
    """The base row: everything off, that is, stock nnU-Net's network, loss and schedule.

    Attributes:
        general_encoder: A second encoder that sees other diseases too, its deepest feature joined with the target
            encoder's, and the relation losses of :class:`CollaborativeTrainer`, whose attributes hold. It needs
            what ``nnunet-covid link`` links.
        edge_attention, partial_decoder, reverse_attention: Inf-Net's parts on the joined features; the last of their
            maps is added to the decoder's logits.
        map_weight: Of the loss of Inf-Net's maps (nnU-Net's own, weighted as nnU-Net weighs maps) beside the decoder's.
        edge_weight: Of the loss of the edges: one of the five terms that Inf-Net's eq. (5) has.
        spatial_convolution: SSA-Net's, on the joined deepest feature.
        kernel, kernel_3d: Its width, as in ``SSANetTrainer``.
        self_attention: SSA-Net's distillation, in the target encoder.
        distillation_weight, distillation_exponent, standardised_attention: As in ``SSANetTrainer``; maps are
            standardised here, because the distillation hardly has a gradient otherwise.
    """

    general_encoder: bool = False
    edge_attention: bool = False
    partial_decoder: bool = False
    reverse_attention: bool = False
    map_weight: float = 1.0
    edge_weight: float = 0.2
    spatial_convolution: bool = False
    kernel: int = 9
    kernel_3d: int = 3
    self_attention: bool = False
    distillation_weight: float = 0.1
    distillation_exponent: float = 2
    standardised_attention: bool = True

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        check_exponent(self.distillation_exponent)
        check_kernels(self)
        strides = self.in_plane_strides(configuration)
        try:
            if self.uses_maps or self.edge_attention:
                select_stages(strides)
            if self.self_attention:
                require_two_stages(len(strides))
        except ValueError as e:
            msg = f"{e}: plan a larger patch, or switch that part off"
            raise ValueError(msg) from e

    @property
    def uses_maps(self) -> bool:
        """Whether Inf-Net's parts give maps, and not edges alone."""
        return self.partial_decoder or self.reverse_attention

    # --- the network

    @classmethod
    def in_plane_strides(cls, configuration: ConfigurationManager) -> list[int]:
        """Of the encoder's stages."""
        return planned_in_plane_strides(configuration)

    @classmethod
    def build_unet(
        cls, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> tuple[nn.Module, Any]:
        """The U-Net with everything off, and what makes another encoder of its kind for so many channels."""
        unet = build_planned_unet(configuration, channels, heads, deep_supervision=deep_supervision)
        return unet, lambda images: build_planned_unet(configuration, images, heads).encoder

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network of the class attributes; in a cascade the general encoder sees the image alone."""
        unet, another_encoder = cls.build_unet(configuration, channels, heads, deep_supervision)
        images = len(configuration.normalization_schemes)
        kernel = cls.kernel if len(configuration.patch_size) == 2 else cls.kernel_3d
        return AllInOneUNet(
            unet,
            heads,
            background=has_background_head(plans),
            general_encoder=another_encoder(images) if cls.general_encoder else None,
            general_channels=images,
            train_general=cls.general_weight > 0,
            edge_attention=cls.edge_attention,
            partial_decoder=cls.partial_decoder,
            reverse_attention=cls.reverse_attention,
            kernel=kernel if cls.spatial_convolution else None,
            distillation=cls.self_attention,
        )

    # --- the loss

    def _build_loss(self) -> nn.Module:
        loss = nnUNetTrainer._build_loss(self)
        extra = self.uses_maps or self.edge_attention or self.self_attention
        if extra and not self.enable_deep_supervision:
            stop_training(f"{type(self).__name__} learns from maps beside its result: keep deep supervision on")
        if self.self_attention:
            distilled = SelfAttentionDistillation(self.distillation_exponent, standardise=self.standardised_attention)
            loss = SSANetLoss(loss, distilled, self.distillation_weight)
        if not (self.uses_maps or self.edge_attention):
            return loss
        return GuidedLoss(
            loss,
            self._loss_of_maps() if self.uses_maps else None,
            self.number_of_maps,
            OneHotTarget(self.label_manager) if self.edge_attention else None,
            planned_edge_axes(self.configuration_manager),
            (self.map_weight, self.edge_weight),
        )

    def _loss_of_maps(self) -> nn.Module:
        batch_dice = self.configuration_manager.batch_dice
        return InfNetLoss(
            OneHotTarget(self.label_manager),
            background=not self.label_manager.has_regions,
            edge=False,
            weights="halving",
            segmentation=map_loss("dice_ce", self.label_manager, batch_dice=batch_dice, ddp=self.is_ddp),
        )

    @property
    def number_of_maps(self) -> int:
        """Of Inf-Net's: the global map, and with the cascade one for each feature from f5 to the finest."""
        if not self.uses_maps:
            return 0
        return 1 + len(self.bare_network.inf_net.cascade_stages)

    # --- the general encoder, or stock nnU-Net without it

    @property
    def uses_relations(self) -> bool:
        return self.general_encoder and super().uses_relations

    def usable_link(self, plans: PlansManager, configuration: str) -> Link | None:
        return super().usable_link(plans, configuration) if self.general_encoder else None

    def general_checkpoint(self) -> Any:
        return super().general_checkpoint() if self.general_encoder else None

    def get_dataloaders(self) -> tuple[Any, Any]:
        own = super() if self.general_encoder else super(CollaborativeTrainer, self)
        return own.get_dataloaders()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's own, or Algorithm 1 with the general encoder."""
        own = super() if self.general_encoder else super(CollaborativeTrainer, self)
        return own.train_step(batch)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        own = super() if self.general_encoder else super(CollaborativeTrainer, self)
        own.on_train_epoch_end(train_outputs)


class AllInOneTrainer(AllInOneUNetTrainer):
    """Everything on."""

    general_encoder = edge_attention = partial_decoder = reverse_attention = True
    spatial_convolution = self_attention = True


class AllInOneNoGeneralTrainer(AllInOneTrainer):
    """Everything that needs no images of other diseases."""

    general_encoder = False


# One idea each.


class AllInOneGeneralTrainer(AllInOneUNetTrainer):
    """The general encoder with its relation losses."""

    general_encoder = True


class AllInOneEdgeTrainer(AllInOneUNetTrainer):
    """Edge attention: here edges are learnt beside the segmentation."""

    edge_attention = True


class AllInOnePartialDecoderTrainer(AllInOneUNetTrainer):
    """The partial decoder."""

    partial_decoder = True


class AllInOneReverseTrainer(AllInOneUNetTrainer):
    """Reverse attention."""

    reverse_attention = True


class AllInOneInfNetTrainer(AllInOneUNetTrainer):
    """Inf-Net's three parts together."""

    edge_attention = partial_decoder = reverse_attention = True


class AllInOneDistillationTrainer(AllInOneUNetTrainer):
    """Self-attention distillation."""

    self_attention = True


class AllInOneSpatialTrainer(AllInOneUNetTrainer):
    """Spatial convolution."""

    spatial_convolution = True
