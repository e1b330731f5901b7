"""Build the second stage's data set for guided multi-class labelling (Inf-Net, §III-C).

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

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.guided.dataset import SOURCES, build_guided_dataset
from nnunet_covid.guided.maps import MAP_KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid guide``."""
    parser.add_argument("dataset", metavar="DATASET", help="number or name of the multi-class raw data set")
    parser.add_argument("-m", "--stage1", type=Path, metavar="MODEL_FOLDER", help="the trained first stage")
    parser.add_argument("--maps-from", choices=SOURCES, default="folds", help="default: %(default)s")
    parser.add_argument(
        "--map",
        choices=MAP_KINDS,
        default="label",
        help="label: 0 and 1, the segmentation that the paper feeds to its second network (default); probability: "
        "0 to 1, needs stage 1's validation with --npz",
    )
    parser.add_argument(
        "-d", "--number", type=int, metavar="ID", help="of the new data set (default: the next free one)"
    )
    parser.add_argument("--name", metavar="NAME", help="of the new data set (default: the old one with Guided)")


def run(args: argparse.Namespace) -> None:
    """Build the data set."""
    if args.maps_from == "reference" and args.stage1 is not None:
        raise UserError("--maps-from reference takes the labels of the data set itself: leave out -m")
    if args.maps_from == "reference" and args.map == "probability":
        raise UserError("references hold no probabilities; leave out --map probability, or take --maps-from folds")
    if args.maps_from == "folds" and args.stage1 is None:
        raise UserError("name the trained first stage with -m, or take the references with --maps-from reference")
    build_guided_dataset(args.dataset, args.stage1, kind=args.map, number=args.number, name=args.name)
