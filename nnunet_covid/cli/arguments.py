"""Arguments that several commands take, each stated once."""

from __future__ import annotations

import argparse

from nnunet_covid.startup import DEVICES


def add_device(parser: argparse.ArgumentParser) -> None:
    """``-device``, as nnU-Net's commands call it."""
    text = "auto: cuda if there is one, else cpu (default: %(default)s)"
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=text)


def add_checkpoint(parser: argparse.ArgumentParser, option: str = "--checkpoint") -> None:
    """``--checkpoint``, or the one of a stage."""
    parser.add_argument(option, default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
