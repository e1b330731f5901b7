"""Choose the unlabelled images that are most worth an expert's labels: where a model disagrees with itself, spread out.

  nnunet-covid suggest MODEL -i UNLABELLED -n 20
  nnunet-covid suggest MODEL -i UNLABELLED -n 20 --leave-out LABELLED
  nnunet-covid suggest MODEL -i UNLABELLED -n 20 --random --seed 1      # the draw to compare with

The predictions of all folds, of all mirrorings, and of teacher and student where a TRAINER_consistency has left both,
are compared voxel by voxel (mutual information in bits). Images are chosen one after the other: those with much
disagreement that look different from what is chosen or labelled already (features of the encoder), and are of other
patients (by conversion.json or by names such as PATIENT_017). Images of the model's own data set, and those of
--leave-out, are left out, by content; its training images count as labelled.

Writes suggestions.csv (rank, image, patient, score and its parts, distance) and suggestions.png, a contact sheet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_covid.cli.arguments import add_model_use, model_use, refuse_among_inputs, seed
from nnunet_covid.cli.imports import imports_held


def add_suggest_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid suggest``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="TRAINER__PLANS__CONFIGURATION, or a zip file of one")
    add("-i", type=Path, required=True, metavar="FOLDER", help="unlabelled images, CASE_0000.…")
    add("-n", type=int, default=20, metavar="N", help="images to choose (default: %(default)s)")
    text = "folder for table and sheet (default: %(default)s)"
    add("-o", type=Path, default=Path("suggestions"), metavar="OUTPUT", help=text)
    text = "folders of images that are labelled already, whatever their names there"
    add("--leave-out", type=Path, nargs="+", action="extend", default=[], metavar="FOLDER", help=text)
    text = "compare no mirrorings: faster, with several folds"
    add_model_use(parser, folds="compare these (default: all trained)", tta=text)
    add("-step_size", type=float, default=0.5, metavar="S", help="distance of patches, 0 to 1 (default: %(default)s)")
    add("--random", action="store_true", help="draw without looking: what a choice must be better than")
    add("--seed", type=seed, default=0, metavar="N", help="of --random (default: %(default)s)")


def suggest(args: argparse.Namespace) -> None:
    """Choose, and write table and sheet."""
    with imports_held():
        from nnunet_covid.errors import UserError
        from nnunet_covid.nnunet.predictor import TrainedModel
        from nnunet_covid.prediction.model_source import model_folder
        from nnunet_covid.suggestion.run import SHEET, TABLE, Request
        from nnunet_covid.suggestion.run import suggest as choose

    if not 0 < args.step_size <= 1:
        raise UserError(f"-step_size is above 0 and at most 1, not {args.step_size:g}")
    refuse_among_inputs(args.o, "table and sheet", args.i, *args.leave_out)
    request = Request(args.i, args.n, args.o, tuple(args.leave_out), not args.disable_tta, args.random, args.seed)
    with model_folder(args.model, args.checkpoint) as folder:
        model = TrainedModel(folder, **model_use(args), mirroring=False, step_size=args.step_size)
        chosen = choose(model, request, lambda line: print(f"note: {line}", file=sys.stderr))
    print(f"{args.o}: {len(chosen)} images in {TABLE} and {SHEET}")
