"""The commands that score a folder of predictions, and compare methods by their scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_covid.cli.arguments import positive, refuse_among_inputs, seed
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import EmptyPolicy, comparison, evaluate_folders, terminal_table, write_report
from nnunet_covid.files import writable_folder

EVALUATE = """Score a folder of predictions against a folder of references: a table here, CSV, JSON and plots with -o.

Label maps are paired by file name; their meaning comes from dataset.json. nnU-Net's saved probabilities
beside the predictions, or maps named with --maps, add the map-based metrics.
"""
COMPARE = """Compare methods on the same cases: paired tests, effect sizes, intervals; a forest plot with -o.

Each argument is a folder written by 'nnunet-covid evaluate -o'. Every pair of them is compared.
"""


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid evaluate``."""
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder of predicted label maps")
    add("references", type=Path, metavar="REFERENCES", help="folder of reference label maps")
    add("-o", "--output", type=Path, metavar="DIR", help="write tables and plots into this folder")
    meaning = parser.add_mutually_exclusive_group()
    meaning.add_argument("--dataset-json", type=Path, metavar="FILE", help="default: beside or above the label maps")
    text = "labels or regions, instead of a dataset.json"
    meaning.add_argument("--labels", nargs="+", metavar="NAME=VALUE[,VALUE…]", help=text)
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument("--maps", type=Path, metavar="DIR", help="folder of probability maps (CASE.npz, grey CASE.png)")
    maps.add_argument("--no-maps", action="store_true", help="leave the map-based metrics out")
    add("--resize-maps", action="store_true", help="resize grey maps to the size of the label maps")
    text = "τ of the NSD: mm, or pixels where files have no spacing (default: 3)"
    add("--tolerance", type=float, default=3.0, metavar="MM", help=text)
    text = "empty masks: score them, or leave the case out where both / the reference is empty"
    policies = [policy.value for policy in EmptyPolicy]
    add("--empty-policy", choices=policies, default=EmptyPolicy.SCORE.value, help=text)
    add("--no-distances", action="store_true", help="leave HD95 and NSD out, to save time")
    add("-n", "--processes", type=positive, default=1, metavar="N", help="processes to use (default: 1)")
    add("--images", type=Path, metavar="DIR", help="images to draw the worst cases on, with -o")
    add("--no-plots", action="store_true", help="with -o, write the tables only")
    add("--quiet", action="store_true", help="no progress bar")


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate, print the table, and write the report if asked.

    Raises:
        UserError: for any mistake in the arguments or the input.
    """
    if args.images is not None and args.output is None:
        raise UserError("--images: pictures of the worst cases are drawn with -o only; add -o DIR")
    if args.images is not None and not args.images.is_dir():
        raise UserError(f"{args.images}: no such folder")
    refuse_among_inputs(args.output, "tables and plots", args.predictions, args.references, args.maps, args.images)
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
    if evaluation.note:
        print(f"note: {evaluation.note}", file=sys.stderr)
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


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid compare``."""
    add = parser.add_argument
    add("evaluations", nargs="+", type=Path, metavar="EVALUATION", help="folders, two or more")
    add("-o", "--output", type=Path, metavar="DIR", help="write tables and the forest plot here")
    add("--names", nargs="+", metavar="NAME", help="names of the methods (default: of the folders)")
    defaults = list(comparison.DEFAULT_METRICS)
    text = f"columns to compare, or all (default: {' '.join(defaults)})"
    add("--metrics", nargs="+", metavar="METRIC", default=defaults, help=text)
    add("--common-cases", action="store_true", help="compare the cases that all evaluations have")
    add("--seed", type=seed, default=0, metavar="N", help="of the bootstrap (default: 0)")


def compare(args: argparse.Namespace) -> None:
    """Compare, print the table, and write the files if asked."""
    if args.output is not None:
        writable_folder(args.output)
    compared = comparison.compare_evaluations(
        args.evaluations, names=args.names, metrics=args.metrics, common_cases=args.common_cases, seed=args.seed
    )
    print(comparison.comparison_table(compared))
    for note in comparison.notes_on_settings(args.evaluations):
        print(f"note: {note}", file=sys.stderr)
    if args.output is not None:
        written = comparison.write_comparison(compared, args.output)
        for path in [*written, *comparison.write_forest(compared, args.output)]:
            print(f"wrote {path}")
