"""Teach a trainer's network on unlabelled images, by having it fill in what is hidden of them; then train with labels.

nnunet-covid pretrain 501 2d -i UNLABELLED
nnunet-covid pretrain 501 2d -i UNLABELLED -tr InfNetTrainer -f 0    # fold 0's training images join
nnUNetv2_train 501 2d 0 -pretrained_weights CHECKPOINT               # the file that the command names at its end

The images are pre-processed with the data set's plans; blocks of the deepest stride's size are hidden in patches of
nnU-Net's own loader, and the network learns to reconstruct them (masked autoencoding; He et al., CVPR 2022). The folder
of the checkpoint also holds reconstructions.png: patches, what was hidden, what the network puts there. Images that are
labelled or test images of the data set are refused, by content. The checkpoint fits the trainer it was made with, with
any length or seed. The same command goes on with a run that was interrupted, at whatever moment.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args, get_type_hints

from nnunet_covid.cli.arguments import add_device, positive, seed
from nnunet_covid.cli.pseudo_label import with_flags
from nnunet_covid.errors import UserError
from nnunet_covid.pretraining.options import RATES, PretrainingOptions
from nnunet_covid.startup import chosen_device


def add_pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid pretrain``."""
    add, default = parser.add_argument, PretrainingOptions()
    add("dataset", metavar="DATASET", help="id or name, planned and pre-processed")
    add("configuration", metavar="CONFIG", help="2d, 3d_fullres or any other of the plans")
    add("-i", dest="images", type=Path, required=True, metavar="FOLDER", help="unlabelled images, CASE_0000.…")
    add("-tr", dest="trainer", default="nnUNetTrainer", metavar="TRAINER", help="default: %(default)s")
    add("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="default: %(default)s")
    text = "its labelled training images join, with 'all' every one; the checkpoint is then for this fold alone"
    add("-f", dest="fold", metavar="FOLD", help=text)
    add("--name", metavar="NAME", help="of the result's folder (default: unlabelled, or foldFOLD with -f)")
    add("--leave-out-duplicates", action="store_true", help="go on without images known already")
    add("-np", dest="workers", type=positive, default=1, metavar="N", help="processes to pre-process with")
    add_device(parser)
    text = "share each batch among so many GPUs of this machine (default: %(default)s)"
    add("-num_gpus", dest="gpus", type=positive, default=1, metavar="N", help=text)
    add("--steps", type=int, default=default.steps, metavar="N", help="default: %(default)s")
    text = "share of a patch that is hidden, usually 0.6 to 0.75 (default: %(default)g)"
    add("--mask-share", type=float, default=default.mask_share, metavar="X", help=text)
    text = "let the decoder see the encoder's finer features (default: what it knows goes through the deepest one)"
    add("--skips", action="store_true", help=text)
    optimizers = get_args(get_type_hints(PretrainingOptions)["optimizer"])
    add("--optimizer", choices=optimizers, default=default.optimizer, help="default: %(default)s")
    rates = ", ".join(f"{rate:g} of {name}" for name, rate in RATES.items())
    add("--learning-rate", type=float, metavar="X", help=f"the highest (default: {rates})")
    add("--seed", type=seed, default=default.seed, metavar="N", help="default: %(default)s")


def pretrain(args: argparse.Namespace) -> None:
    """Do all steps, or go on with them."""
    try:
        _run(args)
    except UserError as e:
        raise UserError(with_flags(str(e)), e.about) from e


def _run(args: argparse.Namespace) -> None:
    import torch

    from nnunet_covid.pretraining.run import run_pretraining
    from nnunet_covid.semi_supervised.experiment import find_experiment

    options = PretrainingOptions(args.steps, args.mask_share, args.skips, args.optimizer, args.learning_rate, args.seed)
    name = args.name or ("unlabelled" if args.fold is None else f"fold{args.fold}")
    device, fold = torch.device(chosen_device(args.device)), args.fold or "all"
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if args.gpus > max(1, there):
        raise UserError(f"`gpus` {args.gpus}: {there} can be used with -device {device}; give no more, or leave it out")
    run_pretraining(
        find_experiment(args.dataset, args.configuration, fold, args.trainer, name, args.plans, device),
        options,
        args.images,
        labelled=args.fold is not None,
        leave_out_duplicates=args.leave_out_duplicates,
        workers=args.workers,
        gpus=args.gpus,
        tell=lambda line: print(with_flags(line)),
    )
