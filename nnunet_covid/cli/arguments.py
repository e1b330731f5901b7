"""Arguments that several commands take, each stated once."""

from __future__ import annotations

import argparse

from nnunet_covid.device import DEVICE_HELP, DEVICES


def add_device(parser: argparse.ArgumentParser) -> None:
    """``-device``, as nnU-Net's commands call it."""
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=DEVICE_HELP)


def add_checkpoint(parser: argparse.ArgumentParser, option: str = "--checkpoint") -> None:
    """``--checkpoint``, or the one of a stage."""
    parser.add_argument(option, default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
