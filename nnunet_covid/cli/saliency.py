"""Show where a trained model looks: attention maps of each encoder stage and Grad-CAM, for every image of a folder.

For each case CASE of INPUT this writes into OUTPUT
  CASE.png                           colour overlays; of a volume, the slice with most predicted foreground
  CASE_attention_stageM.nii.gz       SSA-Net's map Φ of stage M, 1 the shallowest: spatial softmax of Σ|A|^z
  CASE_gradcam_CLASS_stageM.nii.gz   Grad-CAM of a class at the features of a stage, from 0 to 1
  CASE_hirescam_CLASS_stageM.nii.gz  the same without Grad-CAM's mean over positions, for instance-normalised networks
and saliency.json with what was computed how. The NIfTI files have the geometry of the image.

  nnunet-covid saliency nnUNet_results/Dataset501_COVIDSemiSeg/InfNetTrainer__nnUNetPlans__2d imagesTs saliency -f 0

MODEL_FOLDER is any nnU-Net model folder, of a trainer of this project or not, as long as its network has an encoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.cli import DEVICE_HELP
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.saliency.case_maps import EVIDENCE
from nnunet_covid.saliency.export import Settings, export_saliency
from nnunet_covid.startup import DEVICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid saliency``."""
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION")
    parser.add_argument(
        "images", type=Path, metavar="INPUT", help="folder of CASE_0000.ENDING, as for nnUNetv2_predict"
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the maps")
    parser.add_argument(
        "--class",
        dest="classes",
        nargs="+",
        metavar="NAME",
        help="classes for Grad-CAM and HiResCAM, as dataset.json names them (default: every foreground class)",
    )
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="average over these (default: all trained)")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="M",
        help="stages for Grad-CAM and HiResCAM, from 1, or 'all' (default: the deepest)",
    )
    parser.add_argument(
        "--score-over",
        choices=EVIDENCE,
        default="predicted",
        help="the class's score sums its logits over the voxels predicted as the class, or over the whole image "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "-z", "--exponent", type=float, default=2.0, help="z of the attention maps (default: %(default)g)"
    )
    parser.add_argument(
        "--activation", action="store_true", help="write CASE_activation_stageM.nii.gz too: the maps before the softmax"
    )
    parser.add_argument("--encoder", metavar="NAME", help="the encoder's name inside the network (default: find it)")
    parser.add_argument("--disable_tta", action="store_true", help="predict without mirroring; the maps never mirror")
    parser.add_argument(
        "-prev_stage_predictions", type=Path, metavar="DIR", help="label maps of a cascade's first stage"
    )


def run(args: argparse.Namespace) -> None:
    """Compute and write all maps."""
    model = TrainedModel(
        args.model,
        folds=args.folds,
        checkpoint=args.checkpoint,
        device=args.device,
        mirroring=not args.disable_tta,
    )
    settings = Settings(
        class_names=tuple(args.classes) if args.classes else None,
        stages=_stages(args.stages),
        exponent=args.exponent,
        evidence=args.score_over,
        encoder=args.encoder,
        write_activation=args.activation,
    )
    pictures = export_saliency(
        model, args.images, args.output, settings, previous_stage_labels=args.prev_stage_predictions
    )
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
