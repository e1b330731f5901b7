"""Predict a folder of images: the label maps of nnUNetv2_predict, in one process, resumed where it was stopped.

  nnunet-covid predict -i images -o predictions -d 501 -c 2d -tr InfNetTrainer
  nnunet-covid predict -i images -o predictions -m model.zip
  nnunet-covid predict -i archive -o predictions -m MODEL_FOLDER --parts 2/8       # the second of eight machines

Takes the arguments of nnUNetv2_predict and writes the same label maps. Images are read ahead and label maps written
behind the network's back in threads; there are no worker processes. OUTPUT/predicted.jsonl records what is done: the
same command again does the rest, and does anew what another model or other files made. An image that cannot be read is
named on the error output, the others are predicted, and the exit status is 1; it is 2 where none can be.
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path

from nnunet_covid.cli.arguments import Once, add_checkpoint, add_device, positive, refuse_among_inputs
from nnunet_covid.cli.imports import imports_held
from nnunet_covid.errors import UserError
from nnunet_covid.startup import cores

IMAGES_IN_A_BATCH = 16
"""Images handed to the network together on a GPU, whose forward passes hold patches of several."""


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid predict``."""
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="INPUT", help="folder of CASE_0000.ENDING, as the model was trained on")
    add("-o", type=Path, required=True, metavar="OUTPUT", help="folder for the label maps")
    text = "model folder TRAINER__PLANS__CONFIGURATION, or a zip file of nnUNetv2_export_model_to_zip"
    add("-m", type=Path, metavar="MODEL", help=text)
    add("-d", metavar="DATASET", help="number or name of the data set of the model, if -m is not given")
    add("-c", metavar="CONFIGURATION", help="with -d, or to choose from a zip file of several")
    add("-tr", metavar="TRAINER", help="default: nnUNetTrainer")
    add("-p", metavar="PLANS", help="default: nnUNetPlans")
    add("-f", nargs="+", metavar="FOLD", help="average over these (default: all trained)")
    add_checkpoint(parser)
    add("-step_size", type=float, default=0.5, metavar="S", help="distance of patches, 0 to 1 (default: %(default)s)")
    add("--disable_tta", action="store_true", help="predict without mirroring")
    add("--save_probabilities", action="store_true", help="write CASE.npz and CASE.pkl beside the label maps")
    add("-prev_stage_predictions", type=Path, metavar="DIR", help="label maps of a cascade's first stage")
    again = parser.add_mutually_exclusive_group()
    text = "leave every label map that is there, whatever model made it"
    again.add_argument("--continue_prediction", "--c", action="store_true", help=text)
    again.add_argument("--overwrite", action="store_true", help="predict again what is done")
    text = "only part K of N, of the images in the order of their names"
    add("--parts", type=_part, action=Once, metavar="K/N", help=text)
    add("-num_parts", type=int, default=1, metavar="N", help="nnUNetv2_predict's way to say --parts")
    add("-part_id", type=int, default=0, metavar="K", help="from 0, with -num_parts")
    add("-npp", type=int, default=1, metavar="N", help="threads that read (default: %(default)s)")
    add("-nps", type=int, default=1, metavar="N", help="threads that write (default: %(default)s)")
    add("--memory", type=float, default=4.0, metavar="GIB", help="of all images on the way (default: %(default)g)")
    text = "patches in a forward pass (default: 1 on a CPU, where more gain nothing; else what 2 million voxels hold)"
    add("--batch", type=positive, metavar="N", help=text)
    add_device(parser)
    add("--not_on_device", action="store_true", help="sum up the patches in main memory, not on the GPU")
    add("--disable_progress_bar", action="store_true", help="a line a minute instead")
    add("--verbose", action="store_true", help="accepted, and without effect")


def predict(args: argparse.Namespace) -> int:
    """Predict the folder."""
    _check(args)
    with imports_held():
        import torch
        from nnunetv2.training.nnUNetTrainer import nnUNetTrainer  # noqa: F401  what a model imports when it is opened

        from nnunet_covid.files import counted
        from nnunet_covid.nnunet.predictor import TrainedModel
        from nnunet_covid.prediction.conveyor import Limits
        from nnunet_covid.prediction.folder import Options, predict_folder
        from nnunet_covid.prediction.model_source import model_folder

    with model_folder(_source(args), args.checkpoint, (args.tr, args.p, args.c)) as folder:
        model = TrainedModel(
            folder,
            folds=args.f,
            checkpoint=args.checkpoint,
            device=args.device,
            mirroring=not args.disable_tta,
            step_size=args.step_size,
            batch=args.batch,
        )
        if model.device.type == "cpu":
            torch.set_num_threads(cores())  # as nnUNetv2_predict, whatever OMP_NUM_THREADS says
        if args.not_on_device:
            model.predictor.perform_everything_on_device = False
        alone = model.predictor.patches_at_once() == 1 and len(model.folds) == 1
        options = Options(
            previous_stage_labels=args.prev_stage_predictions,
            save_probabilities=args.save_probabilities,
            overwrite=args.overwrite,
            keep_existing=args.continue_prediction,
            part=args.parts or (args.part_id + 1, args.num_parts),
            limits=Limits(int(args.memory * 2**30), args.npp, args.nps, 1 if alone else IMAGES_IN_A_BATCH),
        )
        tell = partial(print, file=sys.stderr)
        bar = False if args.disable_progress_bar else None
        done = predict_folder(model, args.i, args.o, options, tell=tell, bar=bar)
    if done.refused and not done.written + done.kept:
        raise UserError(f"none of the {len(done.refused)} images in {args.i} can be predicted, for the reasons above")
    refused = f", {len(done.refused)} refused" if done.refused else ""
    print(f"{args.o}: {counted(done.written, 'label map')} written, {done.kept} there before{refused}")
    return 1 if done.refused else 0


def _check(args: argparse.Namespace) -> None:
    if args.m is None and (args.d is None or args.c is None):
        raise UserError("name the model: -m MODEL_FOLDER_OR_ZIP, or -d DATASET and -c CONFIGURATION")
    if args.m is not None and args.d is not None:
        raise UserError("-m and -d both name a model: leave one of them out")
    if not 0 < args.step_size <= 1:
        raise UserError(f"-step_size is above 0 and at most 1, not {args.step_size:g}")
    if args.parts is not None and (args.num_parts, args.part_id) != (1, 0):
        raise UserError("--parts K/N says what -num_parts and -part_id say: leave one of them out")
    if not 0 <= args.part_id < args.num_parts:
        raise UserError(f"-part_id is 0 to {args.num_parts - 1} with -num_parts {args.num_parts}, not {args.part_id}")
    if not 0 < args.memory < math.inf:
        raise UserError(f"--memory is above 0 and finite, not {args.memory:g}")
    for name, threads in (("-npp", args.npp), ("-nps", args.nps)):
        if threads < 0:
            raise UserError(f"{name} is a number of threads, not {threads}; leave it out for one")
    refuse_among_inputs(args.o, "label maps", args.i, args.prev_stage_predictions)
    output = args.o.resolve()
    if output.name in ("labelsTr", "labelsTs") and (output.parent / "dataset.json").is_file():
        raise UserError(f"{args.o} holds a data set's references, which label maps would replace; name another -o")
    _check_model_named_twice(args)


def _check_model_named_twice(args: argparse.Namespace) -> None:
    """Beside a model folder, trainer, plans and configuration can only say again what its name says."""
    if args.m is None or not args.m.is_dir():
        return
    named = args.m.resolve().name.split("__")
    for option, given, held in zip(("-tr", "-p", "-c"), (args.tr, args.p, args.c), named, strict=False):
        if len(named) == 3 and given is not None and given != held:
            raise UserError(
                f"{option} {given}: the model {args.m} has {held}; leave {option} out, or name the other model"
            )


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"K/N with K from 1 to N, such as 2/8, not {text!r}")
    return int(number), int(count)


def _source(args: argparse.Namespace) -> Path:
    if args.m is not None:
        return args.m
    from nnunet_covid.nnunet.dataset import dataset_name, nnunet_folder

    name = f"{args.tr or 'nnUNetTrainer'}__{args.p or 'nnUNetPlans'}__{args.c}"
    return nnunet_folder("nnUNet_results") / dataset_name(args.d) / name
