"""SSA-Net on the encoder that nnU-Net plans and on the paper's ResNet34, and the rows of its ablation study."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.dataset_json import lung_mask_channel
from nnunet_covid.files import some_of
from nnunet_covid.losses.reweighted_cross_entropy import ReweightedCrossEntropy, class_weights
from nnunet_covid.losses.ssa_net import SelfAttentionDistillation, SSANetLoss, check_exponent
from nnunet_covid.networks.encoder_description import describe_planned_encoder
from nnunet_covid.networks.spatial_convolution import SpatialConvolution
from nnunet_covid.networks.ssa_net import SSANet, SSANetPaper, distilled_stages, require_two_stages
from nnunet_covid.networks.timm_encoder import HUB
from nnunet_covid.nnunet.architecture import build_planned_unet, planned_in_plane_strides
from nnunet_covid.nnunet.preprocess import cases_without_lungs, check_channels, class_counts, count_labels
from nnunet_covid.nnunet.training import map_loss, supervise_every_map
from nnunet_covid.trainers.base import (
    LungInfectionTrainer,
    TimmWeightsTrainer,
    check_kernels,
    one_of,
)
from nnunet_covid.trainers.undisturbed import stop_training

SegmentationLoss = Literal["dice", "reweighted_ce", "dice_ce"]
SEGMENTATION_LOSSES = ("dice", "reweighted_ce", "dice_ce")


class SSANetTrainer(LungInfectionTrainer):
    """SSA-Net (Wang et al., Medical Image Analysis 2022) with nnU-Net's planned encoder, decoder and schedule.

    Works in 2D and 3D. The decoder's maps are supervised as nnU-Net does it; the paper supervises its one output.

    Attributes:
        spatial_convolution: Whether messages travel over the bottleneck.
        kernel, kernel_3d: Width of its kernel in 2D, and along both axes of a plane in 3D: nine taps either way.
        self_attention: Whether the encoder distils its attention.
        distillation_weight: α of eq. (7).
        distillation_exponent: z of eq. (1).
        distillation_start: First epoch with distillation.
        standardised_attention: Whether each attention map is standardised before the softmax of eq. (2).
        distillation_detach: Whether the later stage of a pair is a fixed target (Hou et al.) or learns too (the
            released code).
        deepest_stride: In-plane stride at which the network ends, 32 in the paper; ``None`` keeps every planned stage.
            Where the plan goes deeper the spatial convolution otherwise works on a few positions.
        segmentation_loss: ``"dice"``, eq. (6); ``"reweighted_ce"``, eq. (8); ``"dice_ce"``, nnU-Net's own, with which
            the Dice is 0.017 higher than with Dice alone (50 cases, seed 0).
    """

    spatial_convolution: bool = True
    kernel: int = 9
    kernel_3d: int = 3
    self_attention: bool = True
    distillation_weight: float = 0.1
    distillation_exponent: float = 2
    distillation_start: int = 0
    distillation_detach: bool = True
    standardised_attention: bool = False
    deepest_stride: int | None = None
    segmentation_loss: SegmentationLoss = "dice_ce"

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        one_of("segmentation_loss", self.segmentation_loss, SEGMENTATION_LOSSES)
        check_exponent(self.distillation_exponent)
        check_kernels(self)
        self.check_encoder(configuration)

    def check_encoder(self, configuration: ConfigurationManager) -> None:
        """Are there at least two stages?"""
        try:
            require_two_stages(self.stages(configuration))
        except ValueError as e:
            msg = f"{e}: plan a larger patch"
            raise ValueError(msg) from e

    def check_data_set(
        self, plans_manager: PlansManager, configuration: ConfigurationManager, dataset_json: dict[str, Any]
    ) -> None:
        check_channels(dataset_json, configuration)
        if self.segmentation_loss == "reweighted_ce" and plans_manager.get_label_manager(dataset_json).has_regions:
            msg = (
                "the re-weighted cross entropy is for classes that exclude each other, but this data set has regions: "
                "set segmentation_loss = 'dice', or convert the data set with classes"
            )
            raise ValueError(msg)

    @classmethod
    def stages(cls, configuration: ConfigurationManager) -> int:
        """How many of the planned stages the network has."""
        strides = planned_in_plane_strides(configuration)
        return sum(cls.deepest_stride is None or s <= cls.deepest_stride for s in strides)

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network of the class attributes; nnU-Net calls this for training and for prediction."""
        unet: Any = build_planned_unet(
            configuration,
            channels,
            heads,
            deep_supervision=deep_supervision,
            stages=cls.stages(configuration),
        )
        description = describe_planned_encoder(unet.encoder)
        dims = description.style.spatial_dims
        kernel = cls.kernel if dims == 2 else cls.kernel_3d
        return SSANet(
            unet.encoder,
            unet.decoder,
            distilled_stages(description.in_plane_strides),
            spatial_convolution=(
                SpatialConvolution(description.channels[-1], dims, kernel) if cls.spatial_convolution else None
            ),
            distillation=cls.self_attention,
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """nnU-Net's: one target per map of the decoder."""
        scales = nnUNetTrainer._get_deep_supervision_scales(self)
        return scales and scales[: self.stages(self.configuration_manager) - 1]

    def _build_loss(self) -> nn.Module:
        scales = self._get_deep_supervision_scales() or []
        if not scales:
            stop_training(f"{type(self).__name__} learns from what its encoder returns: keep deep supervision on")
        # without compilation multi-GPU training does not accept a map that takes no part in the loss
        coarsest = 1e-6 if self.is_ddp and not self._do_i_compile() else 0.0
        return SSANetLoss(
            supervise_every_map(self._loss_of_a_map(), len(scales), coarsest=coarsest),
            SelfAttentionDistillation(
                self.distillation_exponent,
                detach=self.distillation_detach,
                start_epoch=self._distils_from,
                standardise=self.standardised_attention,
            )
            if self.self_attention
            else None,
            self.distillation_weight,
        )

    @property
    def _distils_from(self) -> int:
        return 0 if self.trained_before else self.distillation_start

    def _loss_of_a_map(self) -> nn.Module:
        """The segmentation loss between one map and its target."""
        if self.segmentation_loss == "reweighted_ce":
            self.reweighted = ReweightedCrossEntropy(self.label_manager.ignore_label)
            return self.reweighted
        batch_dice = self.configuration_manager.batch_dice
        return map_loss(self.segmentation_loss, self.label_manager, batch_dice=batch_dice, ddp=self.is_ddp)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, after a look at what this method needs of them: lung masks and class shares."""
        training, validation = super().get_tr_and_val_datasets()
        channel = lung_mask_channel(self.dataset_json)
        if channel is not None:
            self._look_at_lung_masks(training, channel)
        if self.segmentation_loss == "reweighted_ce":
            self._weigh_classes(training)
        return training, validation

    def _look_at_lung_masks(self, dataset: Any, channel: int) -> None:
        """A slice without lung may have an empty mask; a training set of empty masks is a mistake."""
        cases = list(dataset.identifiers)
        try:
            empty = cases_without_lungs(dataset, cases, channel)
        except ValueError as e:
            stop_training(str(e))
        if len(empty) == len(cases):
            stop_training(
                f"the lung mask (channel {channel}) of all {len(cases)} training cases is empty: "
                "convert the data set again, with lung masks that were segmented"
            )
        if empty:
            self.print_to_log_file(
                f"WARNING: the lung mask is empty in {len(empty)} of {len(cases)} training cases: {some_of(empty)}"
            )

    def _weigh_classes(self, dataset: Any) -> None:
        cache = Path(self.preprocessed_dataset_folder_base) / (
            f"class_counts_{self.configuration_manager.data_identifier}.json"
        )
        counts = class_counts(count_labels(dataset, list(dataset.identifiers), cache), self.label_manager.all_labels)
        try:
            self.reweighted.set_counts(counts)
        except ValueError as e:
            stop_training(f"{e} (fold {self.fold}): use segmentation_loss = 'dice', or folds with every class")
        weights = [round(weight, 3) for weight in class_weights(counts).tolist()]
        self.print_to_log_file(f"voxels per class {counts}, class weights {weights}")

    def on_train_start(self) -> None:
        if self.self_attention and self._distils_from >= self.num_epochs:
            stop_training(
                f"{type(self).__name__} distils from epoch {self.distillation_start} on, but the training ends after "
                f"{self.num_epochs}: train longer, or lower distillation_start"
            )
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.loss.distillation is not None:
            self.loss.distillation.epoch = self.current_epoch


class SSANetReweightedTrainer(SSANetTrainer):
    """The loss of the multi-class iterations, eq. (8), in place of Dice."""

    segmentation_loss = "reweighted_ce"


class SSANetDiceTrainer(SSANetTrainer):
    """The paper's loss, eq. (6): Dice alone."""

    segmentation_loss = "dice"


class SSANetDiceCETrainer(SSANetTrainer):
    """nnU-Net's own loss beside the distillation, as in SSANetTrainer: a name that models may have."""

    segmentation_loss = "dice_ce"


class SSANetStandardisedTrainer(SSANetTrainer):
    """Attention maps standardised before the softmax, so that the distillation has a gradient."""

    standardised_attention = True


class SSANetStride32Trainer(SSANetTrainer):
    """Without the stages deeper than stride 32: the spatial convolution works on a map as fine as the paper's."""

    deepest_stride = 32


class SSANetMutualTrainer(SSANetDiceTrainer):
    """Both stages of a pair learn, as in the released code."""

    distillation_detach = False


# Rows of Table 3 (Wang et al., Medical Image Analysis 2022), with the paper's Dice; the last,
# everything, is SSANetDiceTrainer.


class SSANetTrainerBackbone(SSANetDiceTrainer):
    """Row M1: neither part."""

    spatial_convolution = self_attention = False


class SSANetTrainerSA(SSANetDiceTrainer):
    """Row M2: self-attention distillation from the start."""

    spatial_convolution = False


class SSANetTrainerSA10(SSANetTrainerSA):
    """Row E1: self-attention distillation from epoch 10 on."""

    distillation_start = 10


class SSANetTrainerSA20(SSANetTrainerSA):
    """Row E2: self-attention distillation from epoch 20 on."""

    distillation_start = 20


class SSANetTrainerSA30(SSANetTrainerSA):
    """Row E3: self-attention distillation from epoch 30 on."""

    distillation_start = 30


class SSANetTrainerSA40(SSANetTrainerSA):
    """Row E4, the best without spatial convolution: self-attention distillation from epoch 40 on."""

    distillation_start = 40


class SSANetTrainerSA50(SSANetTrainerSA):
    """Row E5: self-attention distillation from epoch 50 on."""

    distillation_start = 50


class SSANetTrainerSA60(SSANetTrainerSA):
    """Row E6: self-attention distillation from epoch 60 on."""

    distillation_start = 60


class SSANetTrainerSC(SSANetDiceTrainer):
    """Row M3: spatial convolution alone."""

    self_attention = False


class SSANetResNet34Trainer(TimmWeightsTrainer, SSANetTrainer):
    """The paper's network and recipe: ResNet34 from scratch, the paper's decoder, 150 epochs; 2D.

    The paper names no optimiser; Adam with 1e-4 is what its sibling methods use, the released code has 1e-3 divided by
    ten every 100 epochs and a weight decay of 1e-8. Patches keep the planned size instead
    of 512×512, and the planned batch size holds.
    """

    encoder_name = "resnet34"
    otherwise = "SSANetTrainer"
    segmentation_loss = "dice"
    optimizer_name = "adam"
    learning_rate = 1e-4
    regularisation = 0.0
    epochs = 150

    def check_encoder(self, configuration: ConfigurationManager) -> None:
        SSANetPaper(self.timm_encoder(), 1, kernel=None)  # on torch's meta device timm's RegNets fail

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The paper's network; weights are loaded only where a training begins."""
        return SSANetPaper(
            cls.timm_encoder(channels),
            heads,
            kernel=cls.kernel if cls.spatial_convolution else None,
            distillation=cls.self_attention,
            deep_supervision=deep_supervision,
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """One target: the paper supervises its one output."""
        return LungInfectionTrainer._get_deep_supervision_scales(self)


class SSANetResNet34PretrainedTrainer(SSANetResNet34Trainer):
    """The same with ImageNet weights from the hub; the paper trains from scratch."""

    encoder_weights = HUB
