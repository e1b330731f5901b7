"""Cross-validation of several trainers on one data set, at equal steps, folds and seeds; resumable.

Every run is nnU-Net's own training and validation. Finished runs are skipped, so the command can be repeated and
extended; ``benchmarks/cross_validation_table.py`` makes the table of what is there.

Example, the CPU protocol on COVID-SemiSeg:

    python benchmarks/cross_validate.py 501 --half --folds 0 1 --seeds 0 \\
        --length 10epochs_50its --trainers nnUNetTrainer InfNetTrainer

Trainings from a checkpoint of ``nnunet-covid pretrain`` have the names of those from random weights: give them another
``nnUNet_results``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.run.run_training import run_training
from nnunetv2.utilities.dataset_name_id_conversion import (
    convert_dataset_name_to_id,
    maybe_convert_to_dataset_name,
)

HALF: dict[str, Any] = {"spacing": [2, 2], "patch_size": [256, 192], "batch_size": 4}
SMALL: dict[str, Any] = {"spacing": [4, 4], "patch_size": [128, 96], "batch_size": 4}


def smaller(architecture: dict[str, Any]) -> dict[str, Any]:
    """The architecture without its deepest stage and with half the features."""
    small = copy.deepcopy(architecture)
    arguments = small["arch_kwargs"]
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder"):
        arguments[name] = arguments[name][:-1]
    arguments["n_stages"] -= 1
    arguments["features_per_stage"] = [n // 2 for n in arguments["features_per_stage"]]
    return small


def add_configuration(dataset: str, name: str, changes: dict[str, Any], *, small: bool = False) -> str:
    """Add a configuration that inherits ``2d`` to the plans, and pre-process for it; returns its name."""
    folder = Path(nnUNet_preprocessed.get()) / dataset
    plans = load_json(folder / "nnUNetPlans.json")
    identifier = f"nnUNetPlans_{name}"
    if name not in plans["configurations"]:
        entry = {"inherits_from": "2d", "data_identifier": identifier, **changes}
        if small:
            entry["architecture"] = smaller(plans["configurations"]["2d"]["architecture"])
        plans["configurations"][name] = entry
        save_json(plans, folder / "nnUNetPlans.json", sort_keys=False)
    cases = len(list((folder / "gt_segmentations").iterdir()))
    if len(list((folder / identifier).glob("*.pkl"))) < cases:
        number = convert_dataset_name_to_id(dataset)
        preprocess_dataset(number, "nnUNetPlans", configurations=(name,), num_processes=(1,))
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="id or name, planned and pre-processed")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--half", action="store_true", help="use (and add) 2d_half: spacing 2, patch 256×192, batch 4")
    which.add_argument(
        "--small",
        action="store_true",
        help="use (and add) 2d_small: spacing 4, patch 128×96, half the features, one stage less",
    )
    which.add_argument("--configuration", default="2d")
    parser.add_argument("--trainers", nargs="+", required=True)
    parser.add_argument("--length", default="10epochs_50its")
    parser.add_argument("--folds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pretrained-weights", help="checkpoint that every training starts from")
    args = parser.parse_args()

    dataset = maybe_convert_to_dataset_name(int(args.dataset) if args.dataset.isdigit() else args.dataset)
    configuration = args.configuration
    if args.half:
        configuration = add_configuration(dataset, "2d_half", HALF)
    elif args.small:
        configuration = add_configuration(dataset, "2d_small", SMALL, small=True)
    torch.set_num_threads(args.threads)
    for seed, fold, trainer in itertools.product(args.seeds, args.folds, args.trainers):
        name = f"{trainer}_{args.length}_seed{seed}"
        folder = Path(nnUNet_results.get()) / dataset / f"{name}__nnUNetPlans__{configuration}" / f"fold_{fold}"
        if (folder / "validation" / "summary.json").is_file():
            print(f"{name} fold {fold}: done")
            continue
        begun = (folder / "checkpoint_latest.pth").is_file()
        run_training(
            dataset,
            configuration,
            fold,
            name,
            export_validation_probabilities=True,  # for the map-based metrics of the table
            continue_training=begun,
            pretrained_weights=None if begun else args.pretrained_weights,
            device=torch.device(args.device),
        )


if __name__ == "__main__":
    main()
