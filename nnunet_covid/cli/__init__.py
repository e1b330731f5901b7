"""The command ``nnunet-covid``: its subcommands in a few modules, each imported only when it is asked for.

A subcommand such as ``lung-mask`` is a function ``lung_mask(args) -> int | None`` of its module and, where it takes
arguments, ``add_lung_mask_arguments(parser)``. What its ``--help`` says is the module's docstring, or ``LUNG_MASK`` in
a module of several subcommands. All but the doctor, who looks at the whole house, leave the work to the rooms below.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from nnunet_covid import __version__
from nnunet_covid.cli.imports import imports_held
from nnunet_covid.disturbances import FULL, SAME_COMMAND
from nnunet_covid.errors import UserError
from nnunet_covid.startup import let_threads_sleep

# name on the command line -> (module in this package, one line of help)
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "register": ("installation", "let nnU-Net find our trainers in this Python environment"),
    "unregister": ("installation", "undo 'register'"),
    "where": ("installation", "print the folder for nnUNet_extTrainer"),
    "doctor": ("installation", "check the whole installation and say what to do about each problem"),
    "convert": ("convert", "turn a public data set, or your own images, into an nnU-Net raw data set"),
    "lung-mask": ("lung_mask", "segment the lungs of images, DICOM series or folders of them"),
    "check": ("check", "look for leaking patients, near-duplicates and misplaced masks in a data set"),
    "evaluate": ("evaluation", "score a folder of predictions against a folder of references"),
    "compare": ("evaluation", "say whether one method beats another on the same cases"),
    "predict": ("predict", "predict a folder of images: nnUNetv2_predict's label maps, faster, and resumed"),
    "calibrate": (
        "trained_model",
        "fit temperature and threshold of a trained model and put them into its checkpoints",
    ),
    "guide": ("guided", "build the second stage's data set of guided multi-class labelling"),
    "predict-guided": ("guided", "predict a folder with both stages of guided multi-class labelling"),
    "saliency": ("trained_model", "show where a trained model looks: attention maps and Grad-CAM of a folder"),
    "pseudo-label": ("pseudo_label", "train in rounds on labelled and pseudo-labelled images"),
    "pretrain": ("pretrain", "teach a trainer's network on unlabelled images, for nnUNetv2_train -pretrained_weights"),
    "sweep": ("sweep", "run trainers × folds × seeds × data sets, on this machine or a SLURM cluster, and go on"),
    "table": ("sweep", "the scores of a sweep's finished runs, with differences to a baseline"),
    "suggest": ("suggest", "choose the unlabelled images that are most worth an expert's labels"),
    "link": ("collaborative", "link other diseases and unlabelled images to a data set that is trained with them"),
    "relations": ("collaborative", "draw the relation matrices that CollaborativeTrainer has kept"),
    "report": ("report", "report on CT scans: millilitres, per cent, severity, pictures, DICOM objects, change"),
    "serve": ("serve", "receive CT series over DICOM, report on each, send the results back"),
    "profile": ("report", "tell what is usual for a model, so that reports can say what lies far from it"),
    "demo": ("demo", "run the whole pipeline on a synthetic data set"),
}

PREDICTING = ("predict", "calibrate", "predict-guided", "saliency", "suggest", "report", "serve", "profile")
"""Commands whose networks work in this process, and that train none."""


def build_parser(selected: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the selected subcommand's module is imported (its arguments need it)."""
    parser = argparse.ArgumentParser(
        prog="nnunet-covid",
        description="Lung-infection segmentation on top of nnU-Net v2: what nnU-Net's own commands lack.",
        epilog="Training is nnU-Net's own command, for example: nnUNetv2_train 501 2d 0 -tr InfNetTrainer",
    )
    parser.add_argument("--version", action="version", version=f"nnunet-covid {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, (module_name, summary) in SUBCOMMANDS.items():
        if name != selected:
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        function = name.replace("-", "_")
        if name in PREDICTING:
            let_threads_sleep()
        with imports_held():
            module = importlib.import_module(f"nnunet_covid.cli.{module_name}")
        description = getattr(module, function.upper(), module.__doc__)
        layout = argparse.RawDescriptionHelpFormatter
        subparser = subparsers.add_parser(name, help=summary, description=description, formatter_class=layout)
        if add_arguments := getattr(module, f"add_{function}_arguments", None):
            add_arguments(subparser)
        subparser.set_defaults(run=getattr(module, function))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a user's mistake, like argparse)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
    arguments = list(sys.argv[1:] if argv is None else argv)
    selected = next((a for a in arguments if not a.startswith("-")), None)
    _silence_libraries()
    args = build_parser(selected).parse_args(arguments)
    try:
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except UserError as e:
        print(error_line(e), file=sys.stderr)
        return e.exit_status
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if e.errno in FULL:
            print(
                f"error: the disk of {e.filename or Path.cwd()} is full; make room and {SAME_COMMAND}", file=sys.stderr
            )
            return 2
        if e.filename is None:
            raise
        print(f"error: {e.filename}: {e.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _silence_libraries() -> None:
    """Leave out what libraries warn their own users of; ``python -W`` or ``PYTHONWARNINGS`` shows it."""
    if not sys.warnoptions:
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)


def error_line(error: UserError) -> str:
    """What the terminal shows: the library speaks of the thing, here the option of that name is added."""
    message = f"error: {error}"
    if error.about is None:
        return message
    between = "\n" if "\n" in message else " "
    return f"{message}{between}(--{error.about.replace('_', '-')})"
