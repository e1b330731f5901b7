"""Settings of consistency that docs/explanation/consistency.md compares: a folder for ``nnUNet_extTrainer``."""

from pathlib import Path

from nnunet_covid.trainers import (
    UNetPretrainedEnlargedTrainer_consistency,
    UNetPretrainedTrainer_consistency,
    nnUNetTrainer_consistency,
)


class FirstFifthTrainer(UNetPretrainedTrainer_consistency):
    """The weight of the unlabelled images rises over the first fifth of the training, as Laine & Aila have it."""

    ramp_share = 0.2


class FirstFifthEnlargedTrainer(UNetPretrainedEnlargedTrainer_consistency):
    """The same on the enlarged image."""

    ramp_share = 0.2


class FirstFifthNNUNetTrainer(nnUNetTrainer_consistency):
    """The same of stock nnU-Net."""

    ramp_share = 0.2


class EarlierTrainer(FirstFifthTrainer):
    """Defaults of before, and no weight by trust: Dice and class weights over sure voxels, a teacher slow at first."""

    weigh_by_trust = False
    unlabelled_overlap = True
    reweight_classes = True
    teacher_decay = (0.99, 0.999)


class MildTrainer(EarlierTrainer):
    """Intensities changed as often as nnU-Net changes them in every training, or less."""

    strong_probability = 0.2


class MildAndLightTrainer(MildTrainer):
    """And little weight."""

    unlabelled_weight = 0.3


class MildByTrustTrainer(MildTrainer):
    """And a weight that falls with the share of trusted voxels."""

    weigh_by_trust = True


class MildByTrustUnweightedTrainer(MildByTrustTrainer):
    """And no class weights."""

    reweight_classes = False


class MildCrossEntropyTrainer(MildByTrustUnweightedTrainer):
    """And no Dice."""

    unlabelled_overlap = False


class OwnSlicesTrainer(FirstFifthTrainer):
    """The labelled slices linked as the unlabelled ones; each fold leaves out its validation."""


class OwnSlicesWholeTrainingTrainer(UNetPretrainedTrainer_consistency):
    """The same with the weight of today, which rises over the whole training."""


class EveryEpochTrainer(FirstFifthTrainer):
    """The teacher of each epoch stays, for ``benchmarks/trusted_labels.py``."""

    def on_epoch_end(self) -> None:
        """Keep the teacher."""
        super().on_epoch_end()
        self.save_checkpoint(str(Path(self.output_folder, f"checkpoint_epoch_{self.current_epoch}.pth")))
