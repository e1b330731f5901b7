"""What ``nnUNetv2_train`` is refused with our trainers, before it writes anything."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import planned
import torch
from image_files import hounsfield, write_volume
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_data_set import DATASET, make_tiny_data_set

from bad_inputs.ingredients import spoilt
from bad_inputs.registry import BadInput, Kind
from nnunet_covid.cli import main
from nnunet_covid.files import NNUNET_FOLDERS
from nnunet_covid.nnunet.architecture import build_planned_unet
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

CONSISTENCY = "940 2d 0 -tr nnUNetTrainer_consistency -p testPlans -device cpu"


def slices(folder: Path) -> None:
    """The planned data set 940 of slices, and ``unlabelled``."""
    make_tiny_data_set(folder)


def volumes(folder: Path) -> None:
    """The same of volumes, in 3D."""
    make_tiny_data_set(folder, dims=3)


def linked(folder: Path) -> None:
    """The slices with their unlabelled images linked, a copy of a validation case among them."""
    slices(folder)
    shutil.copy(folder / f"nnUNet_raw/{DATASET}/imagesTr/case_4_0000.png", folder / "unlabelled/copy_0000.png")
    _link(folder)


def linked_to_one(folder: Path) -> None:
    """The slices with one of the unlabelled images linked."""
    slices(folder)
    _link(folder, "--at-most", "1")


def linked_to_three(folder: Path) -> None:
    """The slices with all of the unlabelled images linked."""
    slices(folder)
    _link(folder)


def _link(folder: Path, *more: str) -> None:
    command = ["link", "-d", "940", "-p", "testPlans", "-c", "2d", "-np", "1", "--unlabelled", f"{folder}/unlabelled"]
    with mock.patch.dict(os.environ, {variable: str(folder / variable) for variable in NNUNET_FOLDERS}):
        assert main([*command, *more]) == 0


def linked_and_cut_short(folder: Path) -> None:
    """The slices with their unlabelled images linked, of which one is damaged since."""
    slices(folder)
    _link(folder)
    damaged = folder / f"nnUNet_preprocessed/{DATASET}/testPlans_2d_unlabelled/un_1.b2nd"
    damaged.write_bytes(damaged.read_bytes()[:-9])


def second_channel(folder: Path) -> None:
    """One of the unlabelled images gets one."""
    shutil.copy(folder / "unlabelled/un_0_0000.png", folder / "unlabelled/un_0_0001.png")


def volumes_of_grey_values(folder: Path) -> None:
    """The volumes, whose plans say so."""
    volumes(folder)
    path = folder / f"nnUNet_preprocessed/{DATASET}/testPlans.json"
    plans = json.loads(path.read_text())
    plans["foreground_intensity_properties_per_channel"] = {"0": {"min": 0, "max": 255}}
    path.write_text(json.dumps(plans))


def in_hounsfield_units(folder: Path) -> None:
    write_volume(folder / "unlabelled/un_0_0000.nii.gz", hounsfield((40, 40, 40), 0))


def as_it_is(folder: Path) -> None:
    pass


def weights_of_other_plans(folder: Path) -> None:
    """A model of stock nnU-Net with twice the features."""
    network = build_planned_unet(PlansManager(planned.plans(stages=4, features=8)).get_configuration("2d"), 1, 2)
    torch.save({"network_weights": network.state_dict()}, folder / "other.pth")


def no_weights_of_nnunet(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / "other.pth")


def trusting_more_than_all(folder: Path) -> None:
    """A trainer of the user's own."""
    (folder / "own").mkdir()
    parent = "from nnunet_covid.trainers import nnUNetTrainer_consistency"
    content = f"{parent}\n\n\nclass SurestTrainer(nnUNetTrainer_consistency):\n    eta = 1.5\n"
    (folder / "own/surest_trainer.py").write_text(content, encoding="utf-8")


BAD_INPUTS = [
    BadInput(
        "timm_encoder_in_3d",
        Kind.UNSUPPORTED,
        "a 3D configuration with a trainer whose encoder works in 2D",
        "nnUNetv2_train 940 3d_fullres 0 -tr InfNetPretrainedTrainer -p testPlans -device cpu",
        spoilt(volumes, as_it_is),
        ("cannot train configuration '3d_fullres' of testPlans: its network works in 2D only: train the 2d",),
    ),
    BadInput(
        "collaborative_without_link",
        Kind.UNSUPPORTED,
        "collaborative training of a data set to which nothing is linked",
        "nnUNetv2_train 940 2d 0 -tr CollaborativeTrainer -p testPlans -device cpu",
        spoilt(slices, as_it_is),
        ("CollaborativeTrainer", "nnunet-covid link"),
    ),
    BadInput(
        "consistency_without_link",
        Kind.UNSUPPORTED,
        "training with unlabelled images where none are linked",
        f"nnUNetv2_train {CONSISTENCY}",
        spoilt(slices, as_it_is),
        ("nnUNetTrainer_consistency: no folder of unlabelled images is linked", "nnunet-covid link", "--unlabelled"),
    ),
    BadInput(
        "train_a_misspelt_configuration",
        Kind.OPTIONS,
        "a configuration that the plans lack, with a trainer of ours",
        "nnUNetv2_train 940 2D 0 -tr InfNetTrainer -p testPlans -device cpu",
        spoilt(slices, as_it_is),
        ("testPlans has no configuration '2D', but 2d",),
    ),
    BadInput(
        "consistency_of_a_misspelt_configuration",
        Kind.OPTIONS,
        "a configuration that the plans lack, with unlabelled images",
        f"nnUNetv2_train {CONSISTENCY.replace('2d', '2d_smal')}",
        spoilt(slices, as_it_is),
        ("testPlans has no configuration '2d_smal', but 2d",),
    ),
    BadInput(
        "train_by_a_misspelt_trainer",
        Kind.OPTIONS,
        "a name that is nearly a trainer's",
        "nnUNetv2_train 940 2d 0 -tr InfNetPretrianedTrainer_3epochs -p testPlans -device cpu",
        spoilt(slices, as_it_is),
        ("trainer InfNetPretrianedTrainer: nnU-Net finds no such trainer; did you mean InfNetPretrainedTrainer?",),
    ),
    BadInput(
        "train_with_suffixes_in_another_order",
        Kind.OPTIONS,
        "a trainer's name with its seed before its length",
        "nnUNetv2_train 940 2d 0 -tr nnUNetTrainer_seed1_3epochs -p testPlans -device cpu",
        spoilt(slices, as_it_is),
        ("nnU-Net finds no such trainer; behind nnUNetTrainer come _consistency, _Nepochs, _Mits and _seedS, in this",),
    ),
    BadInput(
        "consistency_with_one_image",
        Kind.UNSUPPORTED,
        "training with one unlabelled image",
        f"nnUNetv2_train {CONSISTENCY}",
        spoilt(linked_to_one, as_it_is),
        ("nnUNetTrainer_consistency: 1 unlabelled image", "needs two: link a folder with more"),
    ),
    BadInput(
        "linked_image_damaged",
        Kind.DAMAGED,
        "a linked image that was cut short since",
        f"nnUNetv2_train {CONSISTENCY}",
        spoilt(linked_and_cut_short, as_it_is),
        ("linked data are incomplete or damaged: 1 cases, first", "un_1; run nnunet-covid link"),
    ),
    BadInput(
        "consistency_of_dice_alone",
        Kind.UNSUPPORTED,
        "training with unlabelled images by a trainer whose loss is nnU-Net's Dice alone",
        f"nnUNetv2_train {CONSISTENCY.replace('nnUNetTrainer', 'nnUNetTrainerDiceLoss')}",
        spoilt(linked_to_three, as_it_is),
        ("loss cannot leave out unsure voxels; take one with cross entropy",),
        leaves=("nnUNet_results/*/fold_0/training_log_*.txt",),
    ),
    BadInput(
        "validation_image_unlabelled",
        Kind.STALE,
        "a copy of a validation case among the linked unlabelled images, under another name",
        f"nnUNetv2_train {CONSISTENCY}",
        spoilt(linked, as_it_is),
        ("1 unlabelled image(s) are validation or test images (copy = imagesTr/case_4)", "nnunet-covid link"),
    ),
    BadInput(
        "weights_of_other_plans",
        Kind.STALE,
        "pre-trained weights of other plans",
        "nnUNetv2_train 940 2d 0 -tr UNetWarmUpTrainer -p testPlans -device cpu -pretrained_weights other.pth",
        spoilt(slices, weights_of_other_plans),
        (
            "other.pth: not of the network of UNetWarmUpTrainer by ",
            f"{DATASET}/testPlans.json (The shape of the parameters of key encoder.stages.0.0.convs.0.conv.",
            "; take weights of this trainer and these plans",
        ),
        leaves=("nnUNet_results/*/fold_0/training_log_*.txt",),
    ),
    BadInput(
        "weights_of_another_trainer",
        Kind.STALE,
        "pre-trained weights of another trainer",
        "nnUNetv2_train 940 2d 0 -tr InfNetTrainer -p testPlans -device cpu -pretrained_weights other.pth",
        spoilt(slices, weights_of_other_plans),
        ("other.pth: not of the network of InfNetTrainer by ", "(The shape of the parameters of key encoder.stages.0."),
        leaves=("nnUNet_results/*/fold_0/training_log_*.txt",),
    ),
    BadInput(
        "consistency_from_weights_of_other_plans",
        Kind.STALE,
        "pre-trained weights of other plans, and unlabelled images",
        f"nnUNetv2_train {CONSISTENCY} -pretrained_weights other.pth",
        spoilt(linked_to_three, weights_of_other_plans),
        ("other.pth: not of the network of nnUNetTrainer_consistency by ", "encoder.stages.0.0.convs.0.conv.weight"),
        leaves=("nnUNet_results/*/fold_0/training_log_*.txt",),
    ),
    BadInput(
        "weights_of_something_else",
        Kind.DAMAGED,
        "pre-trained weights that are none of nnU-Net's",
        "nnUNetv2_train 940 2d 0 -tr InfNetTrainer -p testPlans -device cpu -pretrained_weights other.pth",
        spoilt(slices, no_weights_of_nnunet),
        ("other.pth: not of the network of InfNetTrainer by ", "(it holds no 'network_weights')"),
        leaves=("nnUNet_results/*/fold_0/training_log_*.txt",),
    ),
    BadInput(
        "consistency_with_a_trust_above_one",
        Kind.OPTIONS,
        "a trainer of one's own with unlabelled images and a trust threshold above 1",
        f"nnUNetv2_train {CONSISTENCY.replace('nnUNetTrainer_consistency', 'SurestTrainer')}",
        spoilt(linked_to_three, trusting_more_than_all),
        ("SurestTrainer: eta = 1.5, but it must lie between 0 and 1",),
        environment=((VARIABLE, f"own{os.pathsep}{TRAINERS_FOLDER}"),),
    ),
    BadInput(
        "rounds_with_a_trust_above_one",
        Kind.OPTIONS,
        "rounds with a trust threshold above 1",
        "nnunet-covid pseudo-label 940 2d 0 -i unlabelled -p testPlans --strategy iterative --threshold 1.5",
        spoilt(slices, as_it_is),
        ("--threshold: η is 1.5, but must lie between 0 and 1",),
    ),
    BadInput(
        "unlabelled_with_more_channels",
        Kind.UNUSED,
        "an unlabelled image with a channel more than the data set",
        "nnunet-covid link -d 940 -p testPlans -c 2d -np 1 --unlabelled unlabelled",
        spoilt(slices, second_channel),
        ("unlabelled: case un_0 has channels 0000, 0001, but", "expected"),
    ),
    BadInput(
        "unlabelled_in_hounsfield_units",
        Kind.UNUSED,
        "an unlabelled volume in Hounsfield units for a data set of grey values",
        "nnunet-covid link -d 940 -p testPlans -c 3d_fullres -np 1 --unlabelled unlabelled",
        spoilt(volumes_of_grey_values, in_hounsfield_units),
        ("un_0 holds values from -1024 to 1", "but the plans are made of grey values up to 255; convert it as the"),
        leaves=("nnUNet_preprocessed/*/*_link.json",),
    ),
]
