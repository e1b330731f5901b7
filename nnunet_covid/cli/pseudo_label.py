"""Turn a labelled data set and a folder of unlabelled images into a better model, with any trainer.

nnunet-covid pseudo-label 501 2d 0 -i imagesUn -tr InfNetTrainer --strategy random
nnunet-covid pseudo-label 501 2d 0 -i imagesUn -tr nnUNetTrainer_100epochs --strategy iterative
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
import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nnunet_covid.cli.arguments import add_device, positive, seed
from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised.options import STRATEGIES, RoundOptions, make_options
from nnunet_covid.startup import chosen_device

SHORT = {"images": "-i", "trainer": "-tr", "gpus": "-num_gpus"}
"""Arguments that are called as nnU-Net's commands call them."""


def add_pseudo_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid pseudo-label``."""
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="id or name, planned and pre-processed")
    add("configuration", metavar="CONFIG", help="2d, 3d_fullres or any other of the plans")
    add("fold", metavar="FOLD", help="whose validation cases are kept out; 'all' keeps none")
    add("-i", dest="images", type=Path, metavar="FOLDER", help="unlabelled images, CASE_0000.…")
    add("-tr", dest="trainer", default="nnUNetTrainer", metavar="TRAINER", help="default: %(default)s")
    add("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="default: %(default)s")
    add("--strategy", choices=STRATEGIES, required=True)
    add("--status", action="store_true", help="show where the run stands, and end")
    add("--name", metavar="NAME", help="of the result, TRAINER_pseudoNAME (default: the strategy)")
    add("--start-from", type=Path, metavar="CHECKPOINT", help="a trained model for round 0")
    text = "of 'nnunet-covid pretrain': every new model starts from them"
    add("--pretrained-weights", type=Path, metavar="CHECKPOINT", help=text)
    add("--leave-out-duplicates", action="store_true", help="go on without images known already")
    add("-np", dest="workers", type=positive, default=1, metavar="N", help="processes to pre-process with")
    add_device(parser)
    groups = {name: parser.add_argument_group(name) for name in ("both strategies", *STRATEGIES)}
    for option in fields(RoundOptions):
        if "help" in option.metadata:
            _add_option(groups[option.metadata["only_for"] or "both strategies"], option)


def _add_option(group: Any, option: Field[Any]) -> None:
    """An option of the rounds as an argument of its name; what is not given stays ``None``."""
    kind = get_type_hints(RoundOptions)[option.name]
    settings: dict[str, Any] = {"dest": option.name, "help": with_flags(option.metadata["help"])}
    if option.name == "threshold":
        settings |= {"nargs": "+", "action": "extend"}  # with those of single classes
    elif option.name == "seed":
        settings |= {"type": seed}
    elif kind is bool:
        settings |= {"action": "store_const", "const": not option.default}
    elif get_origin(kind) is Literal:
        settings |= {"choices": get_args(kind)}
    else:
        settings |= {"type": float if float in get_args(kind) else int}
    if option.metadata["metavar"]:
        settings["metavar"] = option.metadata["metavar"]
    group.add_argument(flag(option.name), **settings)


def flag(name: str) -> str:
    """How an option, or another argument of the command, is called on the command line."""
    if name in SHORT:
        return SHORT[name]
    dashed = name.replace("_", "-")
    return f"--no-{dashed}" if getattr(RoundOptions, name, None) is True else f"--{dashed}"


def with_flags(text: str) -> str:
    """A text of the library, which names options ``` `like_this` ```, as the person at the terminal knows them."""
    return re.sub(r"`(\w+)`", lambda match: flag(match[1]), text)


def pseudo_label(args: argparse.Namespace) -> None:
    """Show the status, or do all rounds."""
    try:
        _run(args)
    except UserError as e:
        raise UserError(with_flags(str(e)), e.about) from e


def _run(args: argparse.Namespace) -> None:
    options = make_options(args.strategy, given_options(args))
    if args.images is None and not args.status:
        raise UserError("`images` FOLDER is missing: where are the unlabelled images?")
    import torch

    from nnunet_covid.semi_supervised.experiment import find_experiment
    from nnunet_covid.semi_supervised.pseudo_label_run import run_pseudo_labels
    from nnunet_covid.semi_supervised.state import read_state, status_table

    name, device = args.name or args.strategy.capitalize(), torch.device(chosen_device(args.device))
    experiment = find_experiment(args.dataset, args.configuration, args.fold, args.trainer, name, args.plans, device)
    if not args.status:
        run_pseudo_labels(
            experiment,
            options,
            args.images,
            start_from=args.start_from,
            pretrained=args.pretrained_weights,
            leave_out_duplicates=args.leave_out_duplicates,
            workers=args.workers,
            tell=lambda line: print(with_flags(line)),
        )
        return
    state = read_state(experiment.report_folder)
    if state is None:
        raise UserError(f"{experiment.report_folder}: no run yet")
    print(status_table(state))


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given on the command line, by attribute of the options."""
    names = set(RoundOptions.__dataclass_fields__) - {"strategy", "threshold", "class_thresholds"}
    given = {name: getattr(args, name) for name in names}
    single: dict[str, float] = {}
    for text in args.threshold or []:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as e:
            raise UserError(f"`threshold` {text}: expected a number or CLASS=number") from e
        if name in single:
            raise UserError(
                f"`threshold` {text}: there is one of {name or 'all classes'} already, {single[name]:g}; give one"
            )
        single[name] = value
    return {**given, "threshold": single.pop("", None), "class_thresholds": single or None}
