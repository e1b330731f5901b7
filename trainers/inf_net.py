"""Inf-Net on the encoder that nnU-Net plans, and the rows of its ablation study."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.losses.inf_net import InfNetLoss
from nnunet_covid.networks.encoder_description import describe_planned_encoder, select_stages
from nnunet_covid.networks.inf_net import DEEPER_STAGES, OUTPUTS, DeeperStages, InfNet, Output
from nnunet_covid.nnunet.architecture import build_planned_unet, has_background_head, truncated_encoder
from nnunet_covid.nnunet.training import OneHotTarget
from nnunet_covid.trainers.base import LungInfectionTrainer, _one_of


class InfNetTrainer(LungInfectionTrainer):
    """Inf-Net (Fan et al., TMI 2020) with nnU-Net's planned encoder and nnU-Net's schedule, in 2D and 3D.

    Attributes:
        output: ``"full"`` continues the reverse-attention cascade over the remaining stages to full resolution;
            ``"stride8"`` reads the result where the paper does.
        deeper_stages: What happens to planned stages deeper than stride 32, ``"drop"`` or ``"merge"``.
        edge_attention, partial_decoder, reverse_attention: The parts of the network.
        bce_weight: λ, the weight of the cross entropy beside the IoU loss.
    """

    output: Output = "full"
    deeper_stages: DeeperStages = "drop"
    edge_attention: bool = True
    partial_decoder: bool = True
    reverse_attention: bool = True
    bce_weight: float = 1.0

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        _one_of("output", self.output, OUTPUTS)
        _one_of("deeper_stages", self.deeper_stages, DEEPER_STAGES)
        self.check_encoder(configuration)

    def check_encoder(self, configuration: ConfigurationManager) -> None:
        """Are there enough stages?"""
        strides = configuration.network_arch_init_kwargs.get("strides", ())
        cumulative, products = 1, []
        for stride in strides:
            cumulative *= stride if isinstance(stride, int) else max(stride[-2:])
            products.append(cumulative)
        try:
            select_stages(products)
        except ValueError as e:
            msg = f"{e}. Plan a larger patch, or train with nnUNetTrainer"
            raise ValueError(msg) from e

    @classmethod
    def build_network_architecture(  # type: ignore[override]
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network of the class attributes; nnU-Net calls this for training and for prediction."""
        unet = build_planned_unet(configuration_manager, num_input_channels, num_output_channels)
        encoder = unet.encoder
        if cls.deeper_stages == "drop":
            deepest = select_stages(describe_planned_encoder(encoder).in_plane_strides)[-1]
            encoder = truncated_encoder(encoder, deepest + 1)
        network = cls.build_heads(
            encoder,
            describe_planned_encoder(encoder),
            num_output_channels,
            background=has_background_head(plans_manager),
            deep_supervision=enable_deep_supervision,
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
        )


class InfNetStride8Trainer(InfNetTrainer):
    """The result read at stride 8, as in the paper."""

    output = "stride8"


class InfNetMergeDeeperTrainer(InfNetTrainer):
    """Planned stages deeper than stride 32 added to f5."""

    deeper_stages = "merge"


# Rows of Table IV (Fan et al., TMI 2020); row 7, everything, is InfNetTrainer itself.


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
