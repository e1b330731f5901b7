"""Predict a folder with both stages of guided multi-class labelling (Inf-Net, §III-C), in one process.

STAGE1 finds the infection in each image; its map becomes the last channel of what STAGE2, trained on a data set of
'nnunet-covid guide', labels. INPUT holds the images as nnUNetv2_predict wants them, without the map.

A run that was stopped goes on where it stopped: finished cases are skipped unless --overwrite is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.cli import DEVICE_HELP
from nnunet_covid.guided.prediction import predict_guided
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.startup import DEVICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid predict-guided``."""
    parser.add_argument("stage1", type=Path, metavar="STAGE1", help="model folder of the first stage")
    parser.add_argument("stage2", type=Path, metavar="STAGE2", help="model folder of the second stage")
    parser.add_argument("images", type=Path, metavar="INPUT", help="folder of CASE_0000.ENDING")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the label maps")
    parser.add_argument("-f1", nargs="+", metavar="FOLD", help="folds of stage 1 (default: all trained)")
    parser.add_argument("-f2", nargs="+", metavar="FOLD", help="folds of stage 2 (default: all trained)")
    parser.add_argument("--checkpoint1", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--checkpoint2", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    parser.add_argument("--disable_tta", action="store_true", help="predict without mirroring, in both stages")
    parser.add_argument("--save_probabilities", action="store_true", help="write CASE.npz beside the label maps")
    parser.add_argument("--save-infection", action="store_true", help="write stage 1's maps into OUTPUT/infection")
    parser.add_argument("--overwrite", action="store_true", help="predict finished cases again")


def run(args: argparse.Namespace) -> None:
    """Predict every image with both stages."""
    common = {"device": args.device, "mirroring": not args.disable_tta}
    stage_one = TrainedModel(args.stage1, folds=args.f1, checkpoint=args.checkpoint1, **common)
    stage_two = TrainedModel(args.stage2, folds=args.f2, checkpoint=args.checkpoint2, **common)
    labels = predict_guided(
        stage_one,
        stage_two,
        args.images,
        args.output,
        overwrite=args.overwrite,
        save_probabilities=args.save_probabilities,
        save_infection=args.save_infection,
        tell=lambda line: print(f"{line}; --overwrite predicts them again"),
    )
    print(f"{args.output}: {len(labels)} label maps")
