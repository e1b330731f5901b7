"""Trainers' names, without torch: ours, and ``BASE[_consistency][_Nepochs][_Mits][_seedS][_pseudoNAME]`` of any."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from nnunet_covid.errors import UserError, did_you_mean
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

SUFFIXES = re.compile(
    r"^(?P<base>.+?)(?P<consistency>_consistency)?(?:_(?P<epochs>\d+)epochs)?(?:_(?P<its>\d+)its)?(?:_seed(?P<seed>\d+))?(?:_pseudo(?P<tag>[A-Za-z0-9]+))?$"
)
"""Matches every name; what it does not end with is ``None``."""
NEARLY_SUFFIXES = re.compile(r"_(consistency|\d+(epoch|it)|seed)")
ORDER = "_consistency, _Nepochs, _Mits and _seedS, in this order, each as it is needed"

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
    "InfNetPretrainedEnlargedTrainer": "inf_net_timm",
    "InfNetPretrainedStride8Trainer": "inf_net_timm",
    "InfNetPretrainedLabelFreeTrainer": "inf_net_timm",
    "InfNetPretrainedPlainLogitsTrainer": "inf_net_timm",
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
"""Every trainer of ours and the module of :mod:`nnunet_covid.trainers` that holds it."""


def no_such_trainer(name: str) -> UserError:
    """To be raised where nnU-Net finds no trainer of this name."""
    return UserError(f"trainer {name}: nnU-Net finds no such trainer{remedy(name)}; see 'nnunet-covid doctor'")


def remedy(name: str) -> str:
    """What is probably wrong with the name of a trainer that does not exist, for the end of a message, or nothing."""
    match = SUFFIXES.match(name)
    base = match["base"] if match else name
    known = (*TRAINERS, "nnUNetTrainer")
    before = [one for one in known if base.startswith(f"{one}_")]
    if before and NEARLY_SUFFIXES.search(base):
        return f"; behind {max(before, key=len)} come {ORDER}"
    return did_you_mean(base, known) if base not in known else ""


def end_misspelt_training(name: str) -> None:
    """End ``nnUNetv2_train`` with one line where a name is nearly one of ours; nnU-Net shows a traceback.

    To be called when our folder, the last that nnU-Net searches, has no such trainer. With folders of others behind
    ours, with another command, or with a name that is like none of ours, nothing happens.
    """
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    ours_is_last = bool(folders) and folders[-1] == str(TRAINERS_FOLDER)
    if Path(sys.argv[0]).name == "nnUNetv2_train" and ours_is_last and remedy(name):
        print(f"error: {no_such_trainer(name)}", file=sys.stderr)
        raise SystemExit(2)
