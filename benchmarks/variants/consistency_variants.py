"""Settings of consistency that docs/explanation/consistency.md compares: a folder for ``nnUNet_extTrainer``."""

from nnunet_covid.trainers import UNetPretrainedTrainer_consistency


class MildTrainer(UNetPretrainedTrainer_consistency):
    """Intensities changed as often as nnU-Net changes them in every training, or less."""

    weigh_by_trust = False
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
