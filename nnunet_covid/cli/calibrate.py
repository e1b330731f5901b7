"""Fit temperature and threshold of each class on the validation predictions of a cross-validation, and apply them.

  nnUNetv2_train 501 2d 0 -tr InfNetTrainer --npz          # every fold; a finished training: --val --npz
  nnunet-covid calibrate nnUNet_results/Dataset501_COVIDSemiSeg/InfNetTrainer__nnUNetPlans__2d

Prints the change to expect of Dice and probability maps, measured on cases that the numbers have not seen, draws the
reliability diagram, and writes scale and shift of the logits into the checkpoints: nnUNetv2_predict uses them from then
on. The weights stay what they are, and training goes on from them: --c, --val and -pretrained_weights see no
calibration. Works for models of every trainer that nnU-Net finds. The exit status is 1 where nothing is written because
the measured Dice falls.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from nnunet_covid.calibration.checkpoints import remove_calibration, write_calibration
from nnunet_covid.calibration.measure import measure
from nnunet_covid.calibration.report import table, write_reliability_diagram, write_report
from nnunet_covid.calibration.validation import open_validation, trained_folds
from nnunet_covid.errors import UserError
from nnunet_covid.files import writable_folder
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid calibrate``."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="TRAINER__PLANS__CONFIGURATION, with fold_* in it")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="for figures and tables (default: MODEL/calibration)"
    )
    parser.add_argument("--references", type=Path, metavar="DIR", help="default: nnU-Net's gt_segmentations")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--temperature-only", action="store_true", help="keep the threshold 0.5: no label changes")
    parser.add_argument("-n", "--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="measure and draw, leave the checkpoints alone")
    what.add_argument("--undo", action="store_true", help="take an earlier calibration out of the checkpoints")


def run(args: argparse.Namespace) -> int:
    """Calibrate a model, or undo it."""
    if args.undo:
        return _undo(args.model, args.checkpoint)
    if not args.dry_run:
        _require_registration()
    validation = open_validation(args.model, args.references, args.checkpoint)
    if validation.unchecked:
        print("note: no splits_final.json to see that no fold was trained on these cases", file=sys.stderr)
    folder = writable_folder(args.output or args.model / "calibration")
    found = measure(
        validation,
        threshold=not args.temperature_only,
        processes=args.processes,
        progress=lambda results, number: tqdm(results, desc="calibrate", unit="case", total=number, disable=None),
    )
    print(table(found))
    for path in (write_report(found, args.model, folder), write_reliability_diagram(found, folder)):
        print(f"wrote {path}")
    if args.dry_run:
        return 0
    if found.mean_dice.mean_difference < 0:
        print("not calibrated: on cases it has not seen the fitted threshold loses Dice; try --temperature-only")
        return 1
    write_calibration(validation.checkpoints, found.calibration)
    folds = ", ".join(path.parent.name for path in validation.checkpoints)
    print(f"calibrated {args.checkpoint} of {folds}; undo with: nnunet-covid calibrate {args.model} --undo")
    return 0


def _undo(model: Path, checkpoint: str) -> int:
    undone = remove_calibration([fold / checkpoint for fold in trained_folds(model, checkpoint)])
    if not undone:
        raise UserError(f"{model}: no {checkpoint} is calibrated")
    print(f"{checkpoint} of {', '.join(path.parent.name for path in undone)} as trained")
    return 0


def _require_registration() -> None:
    """A calibrated checkpoint names a trainer of this package, also where stock nnU-Net has trained it."""
    if str(TRAINERS_FOLDER) not in os.environ.get(VARIABLE, "").split(os.pathsep):
        raise UserError("nnU-Net would not find the calibrated model: run 'nnunet-covid register' first")
