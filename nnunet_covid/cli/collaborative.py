"""The commands around CollaborativeTrainer: link other data to a COVID data set, draw the relation matrices."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunet_covid.auxiliary_data.linking import chosen_configurations, make_link, read_sources, remove_links
from nnunet_covid.auxiliary_data.links import describe_links, open_planned
from nnunet_covid.auxiliary_data.relation_snapshots import folds_of, read_snapshots
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
link goes on where it stopped; linking more adds to what is there. Then train with nnU-Net's own command:
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
    text = "names of the other data sets' labels that are lesions (default: all but background and ignore)"
    add("--lesions", nargs="+", default=[], metavar="LABEL", help=text)
    text = "unlabelled COVID images, named CASE_0000 as nnU-Net has it"
    add("--unlabelled", type=Path, metavar="FOLDER", help=text)
    add("--at-most", type=int, metavar="N", help="of the unlabelled images, N drawn by a fixed seed")
    add("-np", "--processes", type=int, default=default_num_processes, metavar="N", help="default: %(default)s")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--show", action="store_true", help="say what is linked, and whether it can be used")
    text = "take links out, with the data pre-processed for them; -c and -a restrict it"
    add("--remove", action="store_true", help=text)


def link(args: argparse.Namespace) -> None:
    """Make, show or remove links."""
    if args.at_most is not None and args.unlabelled is None:
        raise UserError("--at-most is a number of unlabelled images: name their folder with --unlabelled")
    if args.at_most is not None and args.at_most < 1:
        raise UserError(f"--at-most {args.at_most}: at least one image must be left")
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: at least one process is needed")
    covid = open_planned(args.data_set, args.plans)
    if args.remove:
        removed = remove_links(covid, args.configuration, [dataset_name(other) for other in args.add])
        for folder in removed:
            print(f"removed {covid.folder.parent / folder}")
        if not removed:
            print(f"nothing was linked to {covid.name} under {covid.plans_name}")
        return
    if not args.show:
        if not args.add and args.unlabelled is None:
            raise UserError("nothing to link; name data sets with -a, or a folder of images with --unlabelled")
        sources = read_sources(covid, args.add, args.lesions, args.unlabelled, args.at_most)
        make_link(covid, chosen_configurations(covid, args.configuration), sources, processes=args.processes)
    print(describe_links(covid))


def add_relations_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid relations``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_FOLDER", help="folder of a trained model, with fold_N in it")
    add("-f", "--folds", nargs="+", metavar="FOLD", help="default: all that have snapshots")
    add("-o", "--output", type=Path, metavar="DIR", help="default: beside the snapshots, fold_N/relations")
    add("--rows", type=int, default=6, metavar="N", help="epochs in a picture (default: %(default)s)")


def relations(args: argparse.Namespace) -> None:
    """Draw what the folds hold."""
    kept = {fold: read_snapshots(fold) for fold in folds_of(args.model, args.folds)}
    for fold, snapshots in kept.items():
        folder = fold / "relations" if args.output is None else args.output / fold.name
        for path in draw_relations(snapshots, folder, rows=args.rows):
            print(f"wrote {path}")
