"""The command ``nnunet-covid``: one module per subcommand, imported only when it is the one asked for.

A subcommand module offers ``run(args) -> int | None`` and, where it takes any, ``add_arguments(parser)``. All but the
doctor, who looks at the whole house, leave the work to the rooms below.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nnunet_covid import __version__
from nnunet_covid.errors import UserError

# name on the command line -> (module in this package, one line of help)
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "register": ("register", "let nnU-Net find our trainers in this Python environment"),
    "unregister": ("unregister", "undo 'register'"),
    "where": ("where", "print the folder for nnUNet_extTrainer"),
    "doctor": ("doctor", "check the whole installation and say what to do about each problem"),
    "convert": ("convert", "turn a public data set, or your own images, into an nnU-Net raw data set"),
    "lung-mask": ("lung_mask", "segment the lungs of images, DICOM series or folders of them"),
    "check": ("check", "look for leaking patients, near-duplicates and misplaced masks in a data set"),
    "evaluate": ("evaluate", "score a folder of predictions against a folder of references"),
    "compare": ("compare", "say whether one method beats another on the same cases"),
    "calibrate": ("calibrate", "fit temperature and threshold of a trained model and put them into its checkpoints"),
    "guide": ("guide", "build the second stage's data set of guided multi-class labelling"),
    "predict-guided": ("predict_guided", "predict a folder with both stages of guided multi-class labelling"),
    "saliency": ("saliency", "show where a trained model looks: attention maps and Grad-CAM of a folder"),
    "pseudo-label": ("pseudo_label", "train in rounds on labelled and pseudo-labelled images"),
    "link": ("link", "link other diseases and unlabelled images to a COVID data set for CollaborativeTrainer"),
    "relations": ("relations", "draw the relation matrices that CollaborativeTrainer has kept"),
    "demo": ("demo", "run the whole pipeline on a synthetic data set"),
}
DEVICE_HELP = "auto: cuda if there is one, else cpu (default: %(default)s)"


def build_parser(selected: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the selected subcommand's module is imported (its arguments need it)."""
    parser = argparse.ArgumentParser(
        prog="nnunet-covid",
        description="Lung-infection segmentation on top of nnU-Net v2: what nnU-Net's own commands lack.",
        epilog="Training and prediction are nnU-Net's own commands, for example: "
        "nnUNetv2_train 501 2d 0 -tr InfNetTrainer",
    )
    parser.add_argument("--version", action="version", version=f"nnunet-covid {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, (module_name, summary) in SUBCOMMANDS.items():
        if name == selected:
            module = importlib.import_module(f"nnunet_covid.cli.{module_name}")
            subparser = subparsers.add_parser(
                name,
                help=summary,
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            if hasattr(module, "add_arguments"):
                module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a user's mistake, like argparse)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
    arguments = list(sys.argv[1:] if argv is None else argv)
    selected = next((a for a in arguments if not a.startswith("-")), None)
    args = build_parser(selected).parse_args(arguments)
    try:
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except UserError as e:
        print(error_line(e), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if e.filename is None:
            raise
        print(f"error: {e.filename}: {e.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def error_line(error: UserError) -> str:
    """What the terminal shows: the library speaks of the thing, here the option of that name is added."""
    message = f"error: {error}"
    if error.about is None:
        return message
    between = "\n" if "\n" in message else " "
    return f"{message}{between}(--{error.about.replace('_', '-')})"
