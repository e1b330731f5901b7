"""The commands around CollaborativeTrainer: link other data to a COVID data set, draw the relation matrices."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunet_covid.auxiliary_data.linking import chosen_configurations, make_link, read_sources, remove_links
from nnunet_covid.auxiliary_data.links import describe_links, open_planned
from nnunet_covid.auxiliary_data.relation_snapshots import folds_of, read_snapshots
from nnunet_covid.cli.arguments import positive
from nnunet_covid.errors import UserError
from nnunet_covid.figures.relations import draw_relations
from nnunet_covid.nnunet.dataset import dataset_name

LINK = """Link data of other lung diseases, and unlabelled images, to a COVID data set, for training.

nnunet-covid link -d 501 -a 521 -c 2d               effusion slices beside COVID slices
nnunet-covid link -d 501 -a 520 -a 521              two data sets, every pre-processed configuration
nnunet-covid link -d 501 --unlabelled FOLDER -c 2d  unlabelled COVID images
nnunet-covid link -d 501 --show
nnunet-covid link -d 501 --remove

The linked images are pre-processed by nnU-Net with the COVID data set's plans, which are moved to the other data set
under a name of their own (PLANS_from_DATASET): that data set's own plans and data stay as they are. An interrupted
link goes on where it stopped; linking more with -a adds to what is there, another folder of --unlabelled takes its
place. Then train with nnU-Net's own command:
nnUNetv2_train 501 2d 0 -tr CollaborativeTrainer         (with data of another disease)
nnUNetv2_train 501 2d 0 -tr nnUNetTrainer_consistency    (with unlabelled images alone, and any trainer's name)
"""
RELATIONS = """\
Draw the relation matrices that a training with CollaborativeTrainer has kept, and their differences over time.

nnunet-covid relations $nnUNet_results/Dataset501_X/CollaborativeTrainer__nnUNetPlans__2d
nnunet-covid relations MODEL_FOLDER -f 0 1 -o pictures

For each fold: general_relations.png (other diseases, COVID, absolute difference, a row per epoch), target_relations.png
(general encoder, target encoder, absolute difference) and relation_differences.png (their means over the epochs).
"""


def add_link_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid link``."""
    add = parser.add_argument
    add("-d", "--data-set", required=True, metavar="COVID", help="the COVID data set, number or name")
    add("-a", "--add", action="append", default=[], metavar="OTHER", help="a data set of another disease; repeatable")
    add("-p", "--plans", default="nnUNetPlans", metavar="PLANS", help="default: %(default)s")
    add("-c", "--configuration", nargs="+", default=[], metavar="CONFIG", help="default: all that are pre-processed")
    text = "names of the other data sets' labels that are lesions (default: all but lungs and other organs)"
    add("--lesions", nargs="+", default=[], metavar="LABEL", help=text)
    text = "unlabelled COVID images, named CASE_0000 as nnU-Net has it"
    add("--unlabelled", type=Path, metavar="FOLDER", help=text)
    add("--at-most", type=positive, metavar="N", help="of the unlabelled images, N drawn by a fixed seed")
    add("-np", "--processes", type=positive, default=default_num_processes, metavar="N", help="default: %(default)s")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--show", action="store_true", help="say what is linked, and whether it can be used")
    text = "take links out, with the data pre-processed for them; -c, -a and --unlabelled restrict it"
    add("--remove", action="store_true", help=text)


def link(args: argparse.Namespace) -> None:
    """Make, show or remove links."""
    if args.at_most is not None and args.unlabelled is None:
        raise UserError("--at-most is a number of unlabelled images: name their folder with --unlabelled")
    _refuse_what_is_not_used(args)
    covid = open_planned(args.data_set, args.plans)
    if args.remove:
        unlabelled = [] if args.unlabelled is None else [str(args.unlabelled.resolve())]
        named = [*map(dataset_name, args.add), *unlabelled]
        removed = remove_links(covid, args.configuration, named)
        for folder in removed:
            print(f"removed {covid.folder.parent / folder}")
        if not removed:
            of = " of these" if named else ""
            print(f"nothing{of} was linked to {covid.name} under {covid.plans_name}; --show says what is")
        return
    if not args.show:
        if not args.add and args.unlabelled is None:
            raise UserError("nothing to link; name data sets with -a, or a folder of images with --unlabelled")
        sources = read_sources(covid, args.add, args.lesions, args.unlabelled, args.at_most)
        make_link(covid, chosen_configurations(covid, args.configuration), sources, processes=args.processes)
    print(describe_links(covid))


def _refuse_what_is_not_used(args: argparse.Namespace) -> None:
    """Options that --show or --remove would pass over."""
    given = {
        "-a": args.add,
        "-c": args.configuration,
        "--lesions": args.lesions,
        "--unlabelled": args.unlabelled,
        "--at-most": args.at_most,
    }
    used = {"--show": (), "--remove": ("-a", "-c", "--unlabelled")}
    for mode in [mode for mode in used if getattr(args, mode.removeprefix("--"))]:
        if unused := [option for option in given if given[option] and option not in used[mode]]:
            raise UserError(f"{mode} has no use for {' and '.join(unused)}; leave it out")


def add_relations_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid relations``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_FOLDER", help="folder of a trained model, with fold_N in it")
    add("-f", "--folds", nargs="+", metavar="FOLD", help="default: all that have snapshots")
    add("-o", "--output", type=Path, metavar="DIR", help="default: beside the snapshots, fold_N/relations")
    add("--rows", type=positive, default=6, metavar="N", help="epochs in a picture (default: %(default)s)")


def relations(args: argparse.Namespace) -> None:
    """Draw what the folds hold."""
    kept = {fold: read_snapshots(fold) for fold in folds_of(args.model, args.folds)}
    for fold, snapshots in kept.items():
        folder = fold / "relations" if args.output is None else args.output / fold.name
        for path in draw_relations(snapshots, folder, rows=args.rows):
            print(f"wrote {path}")
