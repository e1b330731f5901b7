"""Score a folder of predictions against a folder of references: a table here, CSV, JSON and plots with -o.

Label maps are paired by file name; their meaning comes from dataset.json. nnU-Net's saved probabilities
beside the predictions, or maps named with --maps, add the map-based metrics.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import EmptyPolicy, evaluate_folders, terminal_table, write_report
from nnunet_covid.files import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid evaluate``."""
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of predicted label maps")
    parser.add_argument("references", type=Path, metavar="REFERENCES", help="folder of reference label maps")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write tables and plots into this folder")
    meaning = parser.add_mutually_exclusive_group()
    meaning.add_argument("--dataset-json", type=Path, metavar="FILE", help="default: beside or above the label maps")
    meaning.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME=VALUE[,VALUE…]",
        help="labels or regions, instead of a dataset.json",
    )
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument("--maps", type=Path, metavar="DIR", help="folder of probability maps (CASE.npz, grey CASE.png)")
    maps.add_argument("--no-maps", action="store_true", help="leave the map-based metrics out")
    parser.add_argument("--resize-maps", action="store_true", help="resize grey maps to the size of the label maps")
    parser.add_argument("--tolerance", type=float, default=3.0, metavar="MM", help="τ of the NSD (default: 3)")
    parser.add_argument(
        "--empty-policy",
        choices=[policy.value for policy in EmptyPolicy],
        default=EmptyPolicy.SCORE.value,
        help="empty masks: score them, or leave the case out where both / the reference is empty",
    )
    parser.add_argument("--no-distances", action="store_true", help="leave HD95 and NSD out, to save time")
    parser.add_argument("-n", "--processes", type=int, default=1, metavar="N", help="processes to use (default: 1)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images to draw the worst cases on, with -o")
    parser.add_argument("--no-plots", action="store_true", help="with -o, write the tables only")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table, and write the report if asked.

    Raises:
        UserError: for any mistake in the arguments or the input.
    """
    if args.images is not None and args.output is None:
        raise UserError("--images: pictures of the worst cases are drawn with -o only; add -o DIR")
    if args.images is not None and not args.images.is_dir():
        raise UserError(f"{args.images}: no such folder")
    if args.output is not None:
        writable_folder(args.output)
    evaluation = evaluate_folders(
        args.predictions,
        args.references,
        dataset_json=args.dataset_json,
        labels=parse_labels(args.labels) if args.labels else None,
        maps=args.maps,
        use_maps=not args.no_maps,
        resize_maps=args.resize_maps,
        tolerance=args.tolerance,
        empty_policy=args.empty_policy,
        distances=not args.no_distances,
        processes=args.processes,
        progress=not args.quiet,
    )
    print(terminal_table(evaluation))
    if args.output is not None:
        for path in write_report(evaluation, args.output, images=args.images, plots=not args.no_plots):
            print(f"wrote {path}")


def parse_labels(entries: list[str]) -> dict[str, int | list[int]]:
    """``["lesion=1,2", "ignore=3"]`` as the labels of a dataset.json.

    Raises:
        UserError: if an entry is not NAME=VALUE[,VALUE…], or a name is given twice.
    """
    labels: dict[str, int | list[int]] = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        try:
            values = [int(v) for v in text.split(",")]
        except ValueError:
            values = []
        if not name or not values:
            raise UserError(f"--labels {entry}: expected NAME=VALUE or NAME=VALUE,VALUE")
        if name in labels:
            raise UserError(f"--labels {entry}: {name} is given twice; a region of several values is NAME=VALUE,VALUE")
        labels[name] = values[0] if len(values) == 1 else values
    return {"background": 0, **labels}
