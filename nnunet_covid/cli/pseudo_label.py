"""Turn a labelled data set and a folder of unlabelled images into a better model, with any trainer.

nnunet-covid pseudo-label 501 2d 0 -i imagesUn -tr InfNetTrainer --strategy random
nnunet-covid pseudo-label 502 2d 0 -i imagesUn -tr nnUNetTrainer_100epochs --strategy iterative
nnunet-covid pseudo-label 501 2d 0 -tr InfNetTrainer --strategy random --status

random      Inf-Net, Algorithm 1: label K images, never revise them, fine-tune the same weights, until no image is left;
            then pre-train a new model on all pseudo labels and fine-tune it on the labelled images.
            [Inf] Fan et al., IEEE TMI 2020, and the code released with it
iterative   SSA-Net, §3.2.2: add t images, renew all pseudo labels with the newest model, train a new model, until the
            validation Dice no longer improves. [SSA] Wang et al., Medical Image Analysis 2022

The result is a model folder of its own, TRAINER_pseudoNAME, for nnUNetv2_predict, nnUNetv2_find_best_configuration and
nnUNetv2_export_model_to_zip. The same command goes on with a run that was interrupted, at whatever moment.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_covid.device import DEVICE_HELP, DEVICES, chosen_device
from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised.options import STRATEGIES, RoundOptions, make_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid pseudo-label``."""
    parser.add_argument("dataset", metavar="DATASET", help="id or name, planned and pre-processed")
    parser.add_argument("configuration", metavar="CONFIG", help="2d, 3d_fullres or any other of the plans")
    parser.add_argument("fold", metavar="FOLD", help="whose validation cases are kept out; 'all' keeps none")
    parser.add_argument("-i", dest="images", type=Path, metavar="FOLDER", help="unlabelled images, CASE_0000.…")
    parser.add_argument("-tr", dest="trainer", default="nnUNetTrainer", metavar="TRAINER", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="default: %(default)s")
    parser.add_argument("--strategy", choices=STRATEGIES, required=True)
    parser.add_argument("--status", action="store_true", help="show where the run stands, and end")
    parser.add_argument("--name", metavar="NAME", help="of the result, TRAINER_pseudoNAME (default: the strategy)")
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="a trained model for round 0")
    parser.add_argument("--leave-out-duplicates", action="store_true", help="go on without images known already")
    parser.add_argument("-np", dest="workers", type=int, default=1, metavar="N", help="processes to pre-process with")
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    _add_common(parser.add_argument_group("both strategies"))
    _add_random(parser.add_argument_group("random"))
    _add_iterative(parser.add_argument_group("iterative"))


def _add_common(group: Any) -> None:
    group.add_argument(
        "--per-round",
        type=int,
        metavar="N",
        help="images per round: K (default: 5 [Inf, §III-D]) or t (default: a tenth of the pool; [SSA] gives none)",
    )
    group.add_argument("--max-rounds", type=int, metavar="N", help="no more rounds than this")
    group.add_argument("--seed", type=int, help="default: 0")
    group.add_argument(
        "--threshold",
        nargs="+",
        metavar="η",
        help="trust threshold, eq. (9); CLASS=η for single classes (default: 0 [Inf] for random, 0.95 [SSA])",
    )
    group.add_argument(
        "--untrusted",
        choices=("background", "ignore"),
        help="what an untrusted voxel becomes: background [SSA] (default), or the ignore label",
    )
    group.add_argument("--soft", action="store_const", const=True, help="soft pseudo labels (beyond the papers)")
    group.add_argument(
        "--confidence",
        choices=("probability", "mirroring"),
        help="what η is compared with and --select goes by: the probability (default), or the share of mirrored "
        "predictions that agree (beyond the papers)",
    )
    group.add_argument(
        "--select", choices=("random", "confident"), help="images drawn at random (both papers), or the surest ones"
    )
    group.add_argument("--no-mirroring", action="store_const", const=False, dest="mirroring", help="predict faster")
    group.add_argument(
        "--no-export", action="store_const", const=False, dest="export", help="no labels in the images' own geometry"
    )


def _add_random(group: Any) -> None:
    group.add_argument("--round-epochs", type=int, metavar="N", help="of each fine-tuning (default: 10 [Inf, code])")
    group.add_argument(
        "--round-iterations",
        type=int,
        metavar="N",
        help="steps per epoch of it (default: one pass over the enlarged set [Inf, code])",
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help="of Adam in each fine-tuning (default: 3e-4 [Inf, code]); 0 keeps the trainer's own optimiser",
    )
    group.add_argument(
        "--no-two-step",
        action="store_const",
        const=False,
        dest="two_step",
        help="end after the last round, without pre-training and fine-tuning a new model [Inf, §III-D]",
    )


def _add_iterative(group: Any) -> None:
    group.add_argument("--patience", type=int, metavar="N", help="rounds without improvement (default: 1 [SSA])")
    group.add_argument("--warm-start", action="store_const", const=True, help="go on with the last round's weights")
    group.add_argument(
        "--reweight",
        choices=("auto", "on", "off"),
        help="class weights of eq. (8) [SSA] in the trainer's cross entropy (default: auto, where it has one)",
    )
    group.add_argument(
        "--until-pool-empty", action="store_const", const=True, help="stop only when no image is left in the pool"
    )


def run(args: argparse.Namespace) -> None:
    """Show the status, or do all rounds."""
    options = make_options(args.strategy, given_options(args))
    if args.images is None and not args.status:
        raise UserError("-i FOLDER is missing: where are the unlabelled images?")
    import torch

    from nnunet_covid.nnunet.rounds.run import run_pseudo_labels
    from nnunet_covid.nnunet.rounds.setting import find_setting
    from nnunet_covid.semi_supervised.state import read_state
    from nnunet_covid.semi_supervised.status import status_table

    tag = args.name or args.strategy.capitalize()
    setting = find_setting(
        args.dataset,
        args.configuration,
        args.fold,
        args.trainer,
        tag,
        args.plans,
        torch.device(chosen_device(args.device)),
    )
    if args.status:
        state = read_state(setting.report_folder)
        if state is None:
            raise UserError(f"{setting.report_folder}: no run yet")
        print(status_table(state))
        return
    run_pseudo_labels(
        setting,
        options,
        args.images,
        start_from=args.start_from,
        leave_out_duplicates=args.leave_out_duplicates,
        workers=args.workers,
    )


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given on the command line, by attribute of the options."""
    names = set(RoundOptions.__dataclass_fields__) - {"strategy", "threshold", "class_thresholds"}
    given = {name: getattr(args, name) for name in names}
    single = {}
    for text in args.threshold or []:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as e:
            raise UserError(f"--threshold {text}: expected a number or CLASS=number") from e
        if equals:
            single[name] = value
        else:
            given["threshold"] = value
    return {**given, "class_thresholds": single or None}
