"""nnU-Net trainers of this project. Each wires a network, a loss and settings together and holds no mathematics.

Names resolve on demand, so that importing this package costs nothing: ``nnunet_covid.trainers.InfNetTrainer``,
and with any length ``nnunet_covid.trainers.InfNetTrainer_30epochs_50its``.
"""

from __future__ import annotations

import importlib

TRAINERS: dict[str, str] = {
    "InfNetTrainer": "inf_net",
    "InfNetStride8Trainer": "inf_net",
    "InfNetMergeDeeperTrainer": "inf_net",
    "InfNetLabelFreeTrainer": "inf_net",
    "InfNetPlainBCETrainer": "inf_net",
    "InfNetMeanMapsTrainer": "inf_net",
    "InfNetHalvingMapsTrainer": "inf_net",
    "InfNetBalancedTrainer": "inf_net",
    "InfNetDiceTrainer": "inf_net",
    "InfNetDiceCETrainer": "inf_net",
    "InfNetTrainerBackbone": "inf_net",
    "InfNetTrainerEA": "inf_net",
    "InfNetTrainerPPD": "inf_net",
    "InfNetTrainerRA": "inf_net",
    "InfNetTrainerRAEA": "inf_net",
    "InfNetTrainerPPDRA": "inf_net",
    "InfNetRes2NetTrainer": "inf_net_timm",
    "InfNetRes2NetScratchTrainer": "inf_net_timm",
    "InfNetPretrainedTrainer": "inf_net_timm",
    "InfNetPretrainedStride8Trainer": "inf_net_timm",
    "InfNetPretrainedBalancedTrainer": "inf_net_timm",
    "InfNetPretrainedDiceCETrainer": "inf_net_timm",
    "InfNetPretrainedScratchTrainer": "inf_net_timm",
    "UNetPretrainedTrainer": "unet_timm",
    "UNetPretrainedScratchTrainer": "unet_timm",
    "UNetPretrainedEnlargedTrainer": "unet_timm",
    "UNetPretrainedSlowEncoderTrainer": "unet_timm",
    "UNetPretrainedLite1Trainer": "unet_timm",
    "UNetPretrainedLite2Trainer": "unet_timm",
    "UNetWarmUpTrainer": "warm_up",
    "CollaborativeTrainer": "collaborative",
    "CollaborativeSumTrainer": "collaborative",
    "CollaborativeTrainerNoUnlabelled": "collaborative",
    "CollaborativeTrainerNoGeneralLoss": "collaborative",
    "CollaborativeTrainerNoTargetLoss": "collaborative",
    "CollaborativeTrainerNoRelationLoss": "collaborative",
    "CollaborativeTrainerFrozenGeneral": "collaborative",
    "SSANetTrainer": "ssa_net",
    "SSANetReweightedTrainer": "ssa_net",
    "SSANetDiceTrainer": "ssa_net",
    "SSANetDiceCETrainer": "ssa_net",
    "SSANetStandardisedTrainer": "ssa_net",
    "SSANetStride32Trainer": "ssa_net",
    "SSANetMutualTrainer": "ssa_net",
    "SSANetTrainerBackbone": "ssa_net",
    "SSANetTrainerSA": "ssa_net",
    "SSANetTrainerSA10": "ssa_net",
    "SSANetTrainerSA20": "ssa_net",
    "SSANetTrainerSA30": "ssa_net",
    "SSANetTrainerSA40": "ssa_net",
    "SSANetTrainerSA50": "ssa_net",
    "SSANetTrainerSA60": "ssa_net",
    "SSANetTrainerSC": "ssa_net",
    "SSANetResNet34Trainer": "ssa_net",
    "SSANetResNet34PretrainedTrainer": "ssa_net",
    "AllInOneTrainer": "all_in_one",
    "AllInOneUNetTrainer": "all_in_one",
    "AllInOneNoGeneralTrainer": "all_in_one",
    "AllInOneGeneralTrainer": "all_in_one",
    "AllInOneEdgeTrainer": "all_in_one",
    "AllInOnePartialDecoderTrainer": "all_in_one",
    "AllInOneReverseTrainer": "all_in_one",
    "AllInOneInfNetTrainer": "all_in_one",
    "AllInOneDistillationTrainer": "all_in_one",
    "AllInOneSpatialTrainer": "all_in_one",
    "AllInOnePretrainedTrainer": "all_in_one_timm",
    "AllInOnePretrainedUNetTrainer": "all_in_one_timm",
    "AllInOnePretrainedNoGeneralTrainer": "all_in_one_timm",
    "AllInOnePretrainedGeneralTrainer": "all_in_one_timm",
    "AllInOnePretrainedEdgeTrainer": "all_in_one_timm",
    "AllInOnePretrainedPartialDecoderTrainer": "all_in_one_timm",
    "AllInOnePretrainedReverseTrainer": "all_in_one_timm",
    "AllInOnePretrainedInfNetTrainer": "all_in_one_timm",
    "AllInOnePretrainedDistillationTrainer": "all_in_one_timm",
    "AllInOnePretrainedSpatialTrainer": "all_in_one_timm",
}
"""Every trainer and the module of this package that holds it."""


def _find_written(name: str) -> type | None:
    """A trainer that is written down: ours, nnU-Net's, or a user's own that nnU-Net finds."""
    if name in TRAINERS:
        return getattr(importlib.import_module(f"{__name__}.{TRAINERS[name]}"), name)
    if name == "nnUNetTrainer":  # by far the most frequent, and nnU-Net imports many others before it finds this one
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        return nnUNetTrainer
    from nnunet_covid.trainers.on_demand import found_by_nnunet

    return found_by_nnunet(name)


def _find_ours(name: str) -> type | None:
    return getattr(importlib.import_module(__name__), name, None)


def __getattr__(name: str) -> type:
    if name.endswith("_calibrated"):
        from nnunet_covid.trainers.calibrated import calibrated_trainer

        found = calibrated_trainer(name, _find_ours)
        if found is not None:
            return found
    elif not name.startswith("__"):
        from nnunet_covid.trainers.on_demand import trainer_of_length

        found = _find_written(name) if name in TRAINERS else trainer_of_length(name, _find_written)
        if found is not None:
            return found
    msg = f"module {__name__!r} has no trainer {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *TRAINERS])
