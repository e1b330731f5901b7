"""Draw the relation matrices that a training with CollaborativeTrainer has kept, and their differences over time.

nnunet-covid relations $nnUNet_results/Dataset501_X/CollaborativeTrainer__nnUNetPlans__2d
nnunet-covid relations MODEL_FOLDER -f 0 1 -o pictures

For each fold: general_relations.png (other diseases, COVID, absolute difference, a row per epoch), target_relations.png
(general encoder, target encoder, absolute difference) and relation_differences.png (their means over the epochs).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.auxiliary_data.relation_snapshots import folds_of, read_snapshots
from nnunet_covid.figures.relations import draw_relations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="folder of a trained model, with fold_N in it")
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="default: all that have snapshots")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: beside the snapshots, fold_N/relations"
    )
    parser.add_argument("--rows", type=int, default=6, metavar="N", help="epochs in a picture (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Draw what the folds hold."""
    folds = folds_of(args.model, args.folds)
    kept = {fold: read_snapshots(fold) for fold in folds}
    for fold, snapshots in kept.items():
        folder = fold / "relations" if args.output is None else args.output / fold.name
        for path in draw_relations(snapshots, folder, rows=args.rows):
            print(f"wrote {path}")
