"""The arguments that all converters share, for ``nnunet-covid convert`` and each converter's ``main``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask.pretrained import MODELS
from nnunet_covid.lung_mask.segment import METHODS
from nnunet_covid.raw_dataset.conversion import convert_data_set
from nnunet_covid.raw_dataset.options import Options, SliceSelection
from nnunet_covid.raw_dataset.recipe import Recipe


def add_conversion_arguments(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Add the arguments of one data set's conversion to its parser."""
    info = recipe.info
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder into which the data set was unpacked")
    parser.add_argument("-d", "--number", type=int, default=info.number, help="data set number (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder for raw data sets (default: nnUNet_raw of the environment)"
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=min(8, os.cpu_count() or 1),
        help="number of processes (default: %(default)s)",
    )
    _add_changes(parser, recipe)


def _add_changes(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """The arguments for ``Options``; only those that make sense for this data set."""
    changes = parser.add_argument_group("changes on the way")
    if len(recipe.schemes) > 1:
        changes.add_argument("--classes", choices=list(recipe.schemes), help="label scheme (default: the first)")
    if recipe.is_hu:
        changes.add_argument(
            "--window",
            type=float,
            nargs=2,
            metavar=("LOW", "HIGH"),
            help="Hounsfield range that becomes 0 to 255, for example -1250 250",
        )
        if recipe.defaults.window:
            changes.add_argument("--no-window", action="store_true", help="keep Hounsfield units")
    changes.add_argument(
        "--crop",
        type=_positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="crop around the lungs' centre of gravity, pixels",
    )
    changes.add_argument("--lung-mask-channel", action="store_true", help="add the lung mask as last channel")
    changes.add_argument(
        "--lung-method",
        choices=METHODS,
        default="auto",
        help="where lung masks come from if the data set has none (default: %(default)s)",
    )
    changes.add_argument("--lung-model", choices=MODELS, default="R231", help="lungmask's model")
    changes.add_argument("--lung-weights", type=Path, metavar="FILE", help="lungmask's weights, to stay offline")
    changes.add_argument("--no-unlabelled", action="store_true", help="leave unlabelled cases out")
    changes.add_argument("--splits", type=Path, metavar="FILE", help="your own folds, JSON (default: the data set's)")
    if recipe.has_volumes:
        changes.add_argument("--slices", choices=("all", "lesion"), help="axial slices as cases of their own")
        changes.add_argument("--every", type=_positive, default=1, metavar="N", help="every N-th of these slices")
        changes.add_argument("--at-most", type=_positive, metavar="N", help="at most N of them per volume, drawn")
        changes.add_argument("--seed", type=int, default=12345, help="seed of that draw (default: %(default)s)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def options_of(recipe: Recipe, args: argparse.Namespace) -> Options:
    """The options that the parsed arguments ask for, over the data set's defaults.

    Raises:
        UserError: If arguments contradict each other.
    """
    window = getattr(args, "window", None) or recipe.defaults.window
    return replace(
        recipe.defaults,
        classes=getattr(args, "classes", None),
        window=None if getattr(args, "no_window", False) else window and tuple(window),
        crop=args.crop and tuple(args.crop),
        lung_mask_channel=args.lung_mask_channel,
        lung_method=args.lung_method,
        lung_model=args.lung_model,
        lung_weights=args.lung_weights,
        slices=_slice_selection(args) or recipe.defaults.slices,
        unlabelled=not args.no_unlabelled,
        splits=args.splits,
    )


def _slice_selection(args: argparse.Namespace) -> SliceSelection | None:
    kind = getattr(args, "slices", None)
    if kind is None:
        if getattr(args, "at_most", None) is not None or getattr(args, "every", 1) != 1:
            raise UserError("--every and --at-most choose among slices; add --slices all or --slices lesion")
        return None
    return SliceSelection(kind == "lesion", args.every, args.at_most, args.seed)


def run_conversion(recipe: Recipe, args: argparse.Namespace) -> None:
    """Convert as the parsed arguments say."""
    convert_data_set(
        recipe,
        args.source,
        options=options_of(recipe, args),
        number=args.number,
        output=args.output,
        workers=args.workers,
        tell=lambda message: print(message, flush=True),
    )


def converter_main(recipe: Recipe, argv: Sequence[str] | None = None) -> int:
    """``python -m nnunet_covid.dataset_conversion.DatasetNNN_Name``; returns the exit status."""
    parser = argparse.ArgumentParser(description=f"Convert {recipe.info.title} to an nnU-Net raw data set.")
    add_conversion_arguments(parser, recipe)
    try:
        run_conversion(recipe, parser.parse_args(argv))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0
