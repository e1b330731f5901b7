"""Take the start-up line of 'nnunet-covid register' out of this Python environment."""

from __future__ import annotations

import argparse

from nnunet_covid.nnunet.registration import unregister


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> None:
    del args
    removed = unregister()
    print(f"removed: {removed}" if removed else "nothing to remove: this environment was not registered")
