"""Arguments that several commands take, each stated once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.startup import DEVICES


class Once(argparse.Action):
    """An option of which only the last would count where it is given twice: it may be given once."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Keep the value."""
        if getattr(namespace, self.dest) is not self.default:
            raise argparse.ArgumentError(self, "is given twice; run the command once for each")
        setattr(namespace, self.dest, values)


def add_device(parser: argparse.ArgumentParser) -> None:
    """``-device``, as nnU-Net's commands call it."""
    text = "auto: cuda if there is one, else cpu (default: %(default)s)"
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=text)


def add_checkpoint(parser: argparse.ArgumentParser, *options: str) -> None:
    """``-chk``, as nnU-Net's commands call it, or the one of a stage."""
    names = options or ("-chk", "--checkpoint")
    parser.add_argument(*names, default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")


def refuse_among_inputs(output: Path | None, what: str, *inputs: Path | None) -> None:
    """An output folder is none that is read.

    Args:
        output: The folder, if one is named.
        what: Is written there.
        inputs: Folders or files that are read, those that are named.

    Raises:
        UserError: If it is.
    """
    if output is not None and output.resolve() in {path.resolve() for path in inputs if path is not None}:
        raise UserError(f"{output} is read, too: {what} there would be taken for its own files; name another output")


def add_model_use(
    parser: argparse.ArgumentParser, folds: str = "default: all trained", tta: str = "predict without mirroring"
) -> None:
    """How a trained model is used: its folds and checkpoint, the device, whether it mirrors; with the texts of two."""
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help=folds)
    add_checkpoint(parser)
    add_device(parser)
    parser.add_argument("--disable_tta", action="store_true", help=tta)


def model_use(args: argparse.Namespace) -> dict[str, Any]:
    """The first three of these as ``TrainedModel`` takes them."""
    return {"folds": args.folds, "checkpoint": args.checkpoint, "device": args.device}


def positive(text: str) -> int:
    """A count from the command line: a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: If it is anything else.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def seed(text: str) -> int:
    """A seed from the command line: an integer that is not negative and has 32 bits, as every generator takes.

    Raises:
        argparse.ArgumentTypeError: If it is anything else.
    """
    if not (text.isascii() and text.isdecimal() and int(text) < 1 << 32):
        raise argparse.ArgumentTypeError(f"a seed must be 0 or a positive integer, not {text}, and below 2^32")
    return int(text)
