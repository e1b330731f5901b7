"""``nnunet-covid convert folder``: arguments beyond those of the public data sets."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_covid.dataset_conversion.folder import TEMPLATE, folder_recipe
from nnunet_covid.dataset_conversion.folder_layout import FolderLayout
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.command_line import add_conversion_arguments, run_conversion
from nnunet_covid.raw_dataset.patient_table import read_patients


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all arguments of the subcommand."""
    add_conversion_arguments(parser, TEMPLATE)
    own = parser.add_argument_group("your folder")
    own.add_argument("--name", type=_name, default=TEMPLATE.info.name, help="name of the data set")
    own.add_argument("--images", type=Path, metavar="DIR", help="folder of the images within SOURCE")
    own.add_argument("--masks", type=Path, metavar="DIR", help="folder of the masks within SOURCE")
    own.add_argument("--lungs", type=Path, metavar="DIR", help="folder of lung masks within SOURCE")
    own.add_argument(
        "--label", type=_label, action="append", metavar="NAME=VALUE", help="a class and its value in the masks"
    )
    own.add_argument("--patients", type=Path, metavar="CSV", help="table with the columns file and case")
    own.add_argument("--patient-pattern", type=_pattern, metavar="REGEX", help="finds the patient in the case name")
    own.add_argument("--allow-missing-masks", action="store_true", help="images without mask become unlabelled")
    own.add_argument("--resample-masks", action="store_true", help="masks may lie on another grid than the image")


def run_folder_conversion(args: argparse.Namespace) -> None:
    """Convert as the parsed arguments say."""
    layout = FolderLayout(
        images=args.images,
        masks=args.masks,
        lungs=args.lungs,
        patients=read_patients(args.patients) if args.patients else {},
        patient_pattern=args.patient_pattern,
        missing_masks_allowed=args.allow_missing_masks,
        resample_masks=args.resample_masks,
    )
    labels = _labels(args.label) if args.label else None
    run_conversion(folder_recipe(args.source, layout, name=args.name, labels=labels), args)


def _labels(given: Sequence[tuple[str, int]]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for name, value in given:
        if name in labels:
            raise UserError(f"--label {name} has the values {labels[name]} and {value}; give each class one")
        labels[name] = value
    return labels


def _label(text: str) -> tuple[str, int]:
    name, separator, value = text.partition("=")
    if not (name and separator and value.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a whole number")
    return name, int(value)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits and hyphens only")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {e}") from e
    return text
