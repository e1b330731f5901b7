"""Link data of other lung diseases, and unlabelled images, to a COVID data set for CollaborativeTrainer.

nnunet-covid link -d 501 -a 521 -c 2d               effusion slices beside COVID slices
nnunet-covid link -d 501 -a 520 -a 521              two data sets, every pre-processed configuration
nnunet-covid link -d 501 --unlabelled FOLDER -c 2d  unlabelled COVID images
nnunet-covid link -d 501 --show
nnunet-covid link -d 501 --remove

The linked images are pre-processed by nnU-Net with the COVID data set's plans, which are moved to the other data set
under a name of their own (PLANS_from_DATASET): that data set's own plans and data stay as they are. An interrupted
link goes on where it stopped; linking more adds to what is there. Then train with nnU-Net's own command:
nnUNetv2_train 501 2d 0 -tr CollaborativeTrainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunet_covid.auxiliary_data.linking import chosen_configurations, make_link, read_sources, remove_links
from nnunet_covid.auxiliary_data.links import PlannedDataset, describe_links, open_planned
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.dataset import dataset_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("-d", "--data-set", required=True, metavar="COVID", help="the COVID data set, number or name")
    parser.add_argument(
        "-a", "--add", action="append", default=[], metavar="OTHER", help="a data set of another disease; repeatable"
    )
    parser.add_argument("-p", "--plans", default="nnUNetPlans", metavar="PLANS", help="default: %(default)s")
    parser.add_argument(
        "-c", "--configuration", nargs="+", default=[], metavar="CONFIG", help="default: all that are pre-processed"
    )
    parser.add_argument(
        "--lesions",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="names of the other data sets' labels that are lesions (default: all but background and ignore)",
    )
    parser.add_argument(
        "--unlabelled", type=Path, metavar="FOLDER", help="unlabelled COVID images, named CASE_0000 as nnU-Net has it"
    )
    parser.add_argument("--at-most", type=int, metavar="N", help="of the unlabelled images, N drawn by a fixed seed")
    parser.add_argument(
        "-np", "--processes", type=int, default=default_num_processes, metavar="N", help="default: %(default)s"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--show", action="store_true", help="say what is linked, and whether it can be used")
    action.add_argument(
        "--remove",
        action="store_true",
        help="take links out, with the data pre-processed for them; -c and -a restrict it",
    )


def run(args: argparse.Namespace) -> None:
    """Make, show or remove links."""
    if args.at_most is not None and args.unlabelled is None:
        raise UserError("--at-most is a number of unlabelled images: name their folder with --unlabelled")
    if args.at_most is not None and args.at_most < 1:
        raise UserError(f"--at-most {args.at_most}: at least one image must be left")
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: at least one process is needed")
    covid = open_planned(args.data_set, args.plans)
    if args.show:
        print(describe_links(covid))
        return
    if args.remove:
        _remove(covid, args)
        return
    if not args.add and args.unlabelled is None:
        raise UserError("nothing to link; name data sets with -a, or a folder of images with --unlabelled")
    sources = read_sources(covid, args.add, args.lesions, args.unlabelled, args.at_most)
    configurations = chosen_configurations(covid, args.configuration)
    make_link(covid, configurations, sources, processes=args.processes)
    print(describe_links(covid))


def _remove(covid: PlannedDataset, args: argparse.Namespace) -> None:
    removed = remove_links(covid, args.configuration, [dataset_name(other) for other in args.add])
    for folder in removed:
        print(f"removed {covid.folder.parent / folder}")
    if not removed:
        print(f"nothing was linked to {covid.name} under {covid.plans_name}")
