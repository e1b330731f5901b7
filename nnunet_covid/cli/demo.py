"""Run the whole pipeline on a synthetic data set: make it, convert, plan, train InfNetTrainer, predict, score.

nnunet-covid demo                       in ./nnunet_covid_demo, on a GPU if there is one
nnunet-covid demo -o FOLDER --seed 1    another folder, other slices
nnunet-covid demo --report              volumes, and reports on a patient's two visits; needs the extra dicom

Every step after the first is one of the commands of a real project, and is shown before it runs. A demo that was
interrupted goes on where it stopped when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_covid.cli.arguments import add_device
from nnunet_covid.demo.pipeline import Demo, Settings, StepFailed
from nnunet_covid.demo.visits import ReportDemo, ReportSettings
from nnunet_covid.report.dicom_objects import dicom_extra
from nnunet_covid.startup import chosen_device

NUMBERS = {
    "epochs": "epochs of training",
    "iterations": "steps per epoch",
    "training": "slices to train on, or volumes",
    "test": "slices to predict and score; none with --report",
}
"""Whole numbers among the settings, and what they count."""


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid demo``."""
    add, default, volumes = parser.add_argument, Settings(), ReportSettings()
    add("--report", action="store_true", help="train on volumes and report on two visits")
    text = "where everything goes (default: ./%(default)s)"
    add("-o", "--output", type=Path, metavar="FOLDER", default=Path("nnunet_covid_demo"), help=text)
    add_device(parser)
    add("--seed", type=int, default=default.seed, help="other slices (default: %(default)s)")
    for name, text in {**NUMBERS, "pixel": "size of a pixel, mm"}.items():
        usual, other = getattr(default, name), getattr(volumes, name)
        text += f" (default: {usual}" + (f"; {other} with --report)" if other != usual else ")")
        add(f"--{name}", type=type(usual), metavar="MM" if name == "pixel" else "N", help=text)


def demo(args: argparse.Namespace) -> int:
    """Run the demo; status 1 if one of its steps failed."""
    given = {name: getattr(args, name) for name in (*NUMBERS, "pixel", "seed") if getattr(args, name) is not None}
    kind, settings_of = (ReportDemo, ReportSettings) if args.report else (Demo, Settings)
    if args.report:
        dicom_extra()
    settings = settings_of(**given, device=chosen_device(args.device))
    try:
        kind(args.output, settings, tell=lambda line: print(line, flush=True)).run()
    except StepFailed as e:
        print("\n".join(e.last_lines), file=sys.stderr)
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0
