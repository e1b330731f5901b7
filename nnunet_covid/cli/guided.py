"""The two commands of guided multi-class labelling: build the second stage's data set, predict with both stages."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.cli.arguments import add_checkpoint, add_device, refuse_among_inputs
from nnunet_covid.errors import UserError
from nnunet_covid.files import counted
from nnunet_covid.guided import prediction
from nnunet_covid.guided.dataset import SOURCES, build_guided_dataset
from nnunet_covid.guided.maps import MAP_KINDS
from nnunet_covid.nnunet.predictor import TrainedModel

GUIDE = """\
Build the second stage's data set for guided multi-class labelling (Inf-Net, §III-C).

DATASET is a raw data set with several classes. The new one has the same images, labels and folds, and one channel more:
the infection map of a first stage, a model that tells infection from background.

  nnunet-covid guide 502 -m nnUNet_results/Dataset501_COVIDSemiSeg/InfNetTrainer__nnUNetPlans__2d
  nnUNetv2_plan_and_preprocess -d 503 -c 2d        # the number that 'guide' printed
  nnUNetv2_train 503 2d 0                          # any trainer
  nnunet-covid predict-guided STAGE1 STAGE2 images predictions

With --maps-from folds (the default) the map of a training image is what the first stage's cross-validation predicted
for it while it was a validation image, so from a model that has not seen it: all folds of stage 1 must be trained, with
the case names of DATASET. With --maps-from reference it is the union of the reference's classes.
"""
PREDICT_GUIDED = """Predict a folder with both stages of guided multi-class labelling (Inf-Net, §III-C), in one process.

STAGE1 finds the infection in each image; its map becomes the last channel of what STAGE2, trained on a data set of
'nnunet-covid guide', labels. INPUT holds the images as nnUNetv2_predict wants them, without the map.

A run that was stopped goes on where it stopped: finished cases are skipped unless --overwrite is given.
"""


def add_guide_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid guide``."""
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="number or name of the multi-class raw data set")
    add("-m", "--stage1", type=Path, metavar="MODEL_FOLDER", help="the trained first stage")
    add("--maps-from", choices=SOURCES, default="folds", help="default: %(default)s")
    text = (
        "label: 0 and 1, the segmentation that the paper feeds to its second network (default); probability: "
        "0 to 1, needs stage 1's validation with --npz"
    )
    add("--map", choices=MAP_KINDS, default="label", help=text)
    add("-d", "--number", type=int, metavar="ID", help="of the new data set (default: the next free one)")
    add("--name", metavar="NAME", help="of the new data set (default: the old one with Guided)")


def guide(args: argparse.Namespace) -> None:
    """Build the data set."""
    if args.maps_from == "reference" and args.stage1 is not None:
        raise UserError("--maps-from reference takes the labels of the data set itself: leave out -m")
    if args.maps_from == "reference" and args.map == "probability":
        raise UserError("references hold no probabilities; leave out --map probability, or take --maps-from folds")
    if args.maps_from == "folds" and args.stage1 is None:
        raise UserError("name the trained first stage with -m, or take the references with --maps-from reference")
    stage_one = args.stage1 and args.stage1.absolute()  # its name and its data set's are written down
    build_guided_dataset(args.dataset, stage_one, kind=args.map, number=args.number, name=args.name)


def add_predict_guided_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid predict-guided``."""
    add = parser.add_argument
    add("stage1", type=Path, metavar="STAGE1", help="model folder of the first stage")
    add("stage2", type=Path, metavar="STAGE2", help="model folder of the second stage")
    add("images", type=Path, metavar="INPUT", help="folder of CASE_0000.ENDING")
    add("output", type=Path, metavar="OUTPUT", help="folder for the label maps")
    add("-f1", nargs="+", metavar="FOLD", help="folds of stage 1 (default: all trained)")
    add("-f2", nargs="+", metavar="FOLD", help="folds of stage 2 (default: all trained)")
    add_checkpoint(parser, "--checkpoint1")
    add_checkpoint(parser, "--checkpoint2")
    add_device(parser)
    add("--disable_tta", action="store_true", help="predict without mirroring, in both stages")
    add("--save_probabilities", action="store_true", help="write CASE.npz beside the label maps")
    add("--save-infection", action="store_true", help="write stage 1's maps into OUTPUT/infection")
    add("--overwrite", action="store_true", help="predict finished cases again")


def predict_guided(args: argparse.Namespace) -> None:
    """Predict every image with both stages."""
    refuse_among_inputs(args.output, "label maps", args.images)
    common = {"device": args.device, "mirroring": not args.disable_tta}
    stage_one = TrainedModel(args.stage1, folds=args.f1, checkpoint=args.checkpoint1, **common)
    stage_two = TrainedModel(args.stage2, folds=args.f2, checkpoint=args.checkpoint2, **common)
    labels = prediction.predict_guided(
        stage_one,
        stage_two,
        args.images,
        args.output,
        overwrite=args.overwrite,
        save_probabilities=args.save_probabilities,
        save_infection=args.save_infection,
        tell=lambda line: print(f"{line}; --overwrite predicts them again"),
    )
    print(f"{args.output}: {counted(len(labels), 'label map')}")
