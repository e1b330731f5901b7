"""Run the whole pipeline on a synthetic data set: make it, convert, plan, train InfNetTrainer, predict, score.

nnunet-covid demo                       in ./nnunet_covid_demo, on a GPU if there is one
nnunet-covid demo -o FOLDER --seed 1    another folder, other slices

Every step after the first is one of the commands of a real project, and is shown before it runs. A demo that was
interrupted goes on where it stopped when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_covid.cli import DEVICE_HELP
from nnunet_covid.demo.pipeline import Demo, Settings, StepFailed
from nnunet_covid.startup import DEVICES, chosen_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid demo``."""
    default = Settings()
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("nnunet_covid_demo"),
        help="where everything goes (default: ./%(default)s)",
    )
    parser.add_argument("-device", "--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    parser.add_argument("--seed", type=int, default=default.seed, help="other slices (default: %(default)s)")
    for name, text in (
        ("epochs", "epochs of training"),
        ("iterations", "steps per epoch"),
        ("training", "slices to train on"),
        ("test", "slices to predict and score"),
    ):
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{text} (default: {value})")
    parser.add_argument(
        "--pixel", type=float, default=default.pixel, metavar="MM", help="size of a pixel (default: %(default)s mm)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; status 1 if one of its steps failed."""
    chosen = {name: getattr(args, name) for name in ("training", "test", "pixel", "epochs", "iterations", "seed")}
    settings = Settings(**chosen, device=chosen_device(args.device))
    try:
        Demo(args.output, settings, tell=lambda line: print(line, flush=True)).run()
    except StepFailed as e:
        print("\n".join(e.last_lines), file=sys.stderr)
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0
