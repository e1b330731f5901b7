"""The commands that calibrate a trained model and show where it looks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from nnunet_covid.calibration.fit import TEMPERATURES
from nnunet_covid.calibration.measure import measure, table, write_reliability_diagram, write_report
from nnunet_covid.calibration.model_folder import open_validation, remove_calibration, trained_folds, write_calibration
from nnunet_covid.cli.arguments import add_checkpoint, add_model_use, model_use, positive, refuse_among_inputs
from nnunet_covid.errors import UserError
from nnunet_covid.files import writable_folder
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.saliency.case_maps import EVIDENCE
from nnunet_covid.saliency.export import Settings, export_saliency
from nnunet_covid.startup import is_offered

CALIBRATE = """\
Fit temperature and threshold of each class on the validation predictions of a cross-validation, and apply them.

  nnUNetv2_train 501 2d 0 -tr InfNetTrainer --npz          # every fold; a finished training: --val --npz
  nnunet-covid calibrate nnUNet_results/Dataset501_COVIDSemiSeg/InfNetTrainer__nnUNetPlans__2d

Prints the change to expect of Dice and probability maps, measured on cases that the numbers have not seen, draws the
reliability diagram, and writes scale and shift of the logits into the checkpoints: nnUNetv2_predict uses them from then
on. The weights stay what they are, and training goes on from them: --c, --val and -pretrained_weights see no
calibration. Works for models of every trainer that nnU-Net finds. The exit status is 1 where nothing is written because
the measured Dice falls.
"""
SALIENCY = """\
Show where a trained model looks: attention maps of each encoder stage and Grad-CAM, for every image of a folder.

For each case CASE of INPUT this writes into OUTPUT
  CASE.png                           colour overlays; of a volume, the slice with most predicted foreground
  CASE_attention_stageM.nii.gz       SSA-Net's map Φ of stage M, 1 the shallowest: spatial softmax of Σ|A|^z
  CASE_gradcam_CLASS_stageM.nii.gz   Grad-CAM of a class at the features of a stage, from 0 to 1
  CASE_hirescam_CLASS_stageM.nii.gz  the same without Grad-CAM's mean over positions, for instance-normalised networks
and saliency.json with what was computed how. The NIfTI files have the geometry of the image.

  nnunet-covid saliency nnUNet_results/Dataset501_COVIDSemiSeg/InfNetTrainer__nnUNetPlans__2d imagesTs saliency -f 0

MODEL_FOLDER is any nnU-Net model folder, of a trainer of this project or not, as long as its network has an encoder.
"""


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid calibrate``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="TRAINER__PLANS__CONFIGURATION, with fold_* in it")
    add("-o", "--output", type=Path, metavar="DIR", help="for figures and tables (default: MODEL/calibration)")
    add("--references", type=Path, metavar="DIR", help="default: nnU-Net's gt_segmentations")
    add_checkpoint(parser)
    add("--temperature-only", action="store_true", help="keep the threshold 0.5: no label changes")
    add("-n", "--processes", type=positive, default=1, metavar="N", help="default: %(default)s")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="measure and draw, leave the checkpoints alone")
    what.add_argument("--undo", action="store_true", help="take an earlier calibration out of the checkpoints")


def calibrate(args: argparse.Namespace) -> int:
    """Calibrate a model, or undo it."""
    model = Path(os.path.abspath(args.model))  # its name counts, also where it is given as a dot
    if args.undo:
        return _undo(model, args.checkpoint)
    if not args.dry_run and not is_offered():  # the checkpoint will name a trainer of ours, whoever trained it
        raise UserError("nnU-Net would not find the calibrated model: run 'nnunet-covid register' first")
    validation = open_validation(model, args.references, args.checkpoint)
    if validation.unchecked:
        print("note: no splits_final.json to see that no fold was trained on these cases", file=sys.stderr)
    folder = writable_folder(args.output or model / "calibration")
    found = measure(
        validation,
        threshold=not args.temperature_only,
        processes=args.processes,
        progress=lambda results, number: tqdm(results, desc="calibrate", unit="case", total=number, disable=None),
    )
    print(table(found))
    if found.calibration.at_a_limit:
        low, high = TEMPERATURES
        text = f"note: a temperature lies at the limit of its range ({low:g} to {high:g})"
        print(f"{text}: the probabilities say hardly anything; was the model trained to its end?", file=sys.stderr)
    for path in (write_report(found, model, folder), write_reliability_diagram(found, folder)):
        print(f"wrote {path}")
    if args.dry_run:
        return 0
    if found.mean_dice.mean_difference < 0:
        print("not calibrated: on cases it has not seen the fitted threshold loses Dice; try --temperature-only")
        return 1
    write_calibration(validation.checkpoints, found.calibration)
    folds = ", ".join(path.parent.name for path in validation.checkpoints)
    undo = shlex.join(["nnunet-covid", "calibrate", str(model), "-chk", args.checkpoint, "--undo"])
    print(f"calibrated {args.checkpoint} of {folds}; undo with: {undo}")
    return 0


def _undo(model: Path, checkpoint: str) -> int:
    undone = remove_calibration([fold / checkpoint for fold in trained_folds(model, checkpoint)])
    if not undone:
        raise UserError(f"{model}: no {checkpoint} is calibrated")
    print(f"{checkpoint} of {', '.join(path.parent.name for path in undone)} as trained")
    return 0


def add_saliency_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid saliency``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION")
    add("images", type=Path, metavar="INPUT", help="folder of CASE_0000.ENDING, as for nnUNetv2_predict")
    add("output", type=Path, metavar="OUTPUT", help="folder for the maps")
    text = "classes for Grad-CAM and HiResCAM, as dataset.json names them (default: every foreground class)"
    add("--class", dest="classes", nargs="+", metavar="NAME", help=text)
    text = "predict without mirroring; the maps never mirror"
    add_model_use(parser, folds="average over these (default: all trained)", tta=text)
    text = "stages for Grad-CAM and HiResCAM, from 1, or 'all' (default: the deepest)"
    add("--stages", nargs="+", metavar="M", help=text)
    text = (
        "the class's score sums its logits over the voxels predicted as the class, or over the whole image "
        "(default: %(default)s)"
    )
    add("--score-over", choices=EVIDENCE, default="predicted", help=text)
    add("-z", "--exponent", type=float, default=2.0, help="z of the attention maps (default: %(default)g)")
    text = "write CASE_activation_stageM.nii.gz too: the maps before the softmax"
    add("--activation", action="store_true", help=text)
    add("--encoder", metavar="NAME", help="the encoder's name inside the network (default: find it)")
    add("-prev_stage_predictions", type=Path, metavar="DIR", help="label maps of a cascade's first stage")


def saliency(args: argparse.Namespace) -> None:
    """Compute and write all maps."""
    refuse_among_inputs(args.output, "pictures of maps", args.images, args.prev_stage_predictions)
    model = TrainedModel(args.model, **model_use(args), mirroring=not args.disable_tta)
    settings = Settings(
        class_names=tuple(args.classes) if args.classes else None,
        stages=_stages(args.stages),
        exponent=args.exponent,
        evidence=args.score_over,
        encoder=args.encoder,
        write_activation=args.activation,
    )
    previous = args.prev_stage_predictions
    pictures = export_saliency(model, args.images, args.output, settings, previous_stage_labels=previous)
    print(f"{args.output}: maps of {len(pictures)} cases")


def _stages(given: list[str] | None) -> tuple[int, ...] | None:
    if given is None:
        return ()
    if given == ["all"]:
        return None
    try:
        return tuple(int(number) for number in given)
    except ValueError:
        raise UserError(f"--stages takes numbers, from 1 on, or 'all', not {' '.join(given)}") from None
