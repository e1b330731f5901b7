"""Turn a public data set, or your own folder, into an nnU-Net raw data set.

nnunet-covid convert --list                       what can be converted, and where to get it
nnunet-covid convert covid-semiseg SOURCE         one data set
nnunet-covid convert covid-semiseg --help         its options
"""

from __future__ import annotations

import argparse

from nnunet_covid.dataset_conversion.folder import TEMPLATE
from nnunet_covid.dataset_conversion.folder_command_line import add_folder_arguments, run_folder_conversion
from nnunet_covid.dataset_conversion.registry import recipe_named, recipes
from nnunet_covid.raw_dataset.command_line import add_conversion_arguments, run_conversion
from nnunet_covid.raw_dataset.listing import listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two stages: the name chooses the parser for the rest."""
    parser.add_argument("--list", action="store_true", help="show every data set: paper, licence, expected files")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the data set, as --list shows it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="see: convert NAME --help")
    parser.set_defaults(parser=parser)


def run(args: argparse.Namespace) -> int | None:
    """List the data sets or convert one."""
    if args.list:
        print(listing([*recipes().values(), TEMPLATE]))
        return 0
    if args.name is None:
        args.parser.error("give the NAME of a data set, or --list")
    parser = argparse.ArgumentParser(prog=f"nnunet-covid convert {args.name}")
    if args.name == "folder":
        parser.description = "Convert your own images and masks to an nnU-Net raw data set."
        add_folder_arguments(parser)
        run_folder_conversion(parser.parse_args(args.arguments))
        return 0
    recipe = recipe_named(args.name)
    parser.description = f"Convert {recipe.info.title} to an nnU-Net raw data set."
    add_conversion_arguments(parser, recipe)
    run_conversion(recipe, parser.parse_args(args.arguments))
    return 0
