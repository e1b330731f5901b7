"""Compare methods on the same cases: paired tests, effect sizes, intervals; a forest plot with -o.

Each argument is a folder written by 'nnunet-covid evaluate -o'. Every pair of them is compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_covid.evaluation.comparison import (
    DEFAULT_METRICS,
    compare_evaluations,
    comparison_table,
    notes_on_settings,
    write_comparison,
    write_forest,
)
from nnunet_covid.files import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid compare``."""
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="EVALUATION", help="folders, two or more")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write tables and the forest plot here")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the methods (default: of the folders)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        default=list(DEFAULT_METRICS),
        help=f"columns to compare, or all (default: {' '.join(DEFAULT_METRICS)})",
    )
    parser.add_argument("--common-cases", action="store_true", help="compare the cases that all evaluations have")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the bootstrap (default: 0)")


def seed(text: str) -> int:
    """A seed from the command line: an integer that is not negative.

    Raises:
        argparse.ArgumentTypeError: if it is anything else.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed must be 0 or a positive integer, not {text}")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Compare, print the table, and write the files if asked."""
    if args.output is not None:
        writable_folder(args.output)
    compared = compare_evaluations(
        args.evaluations, names=args.names, metrics=args.metrics, common_cases=args.common_cases, seed=args.seed
    )
    print(comparison_table(compared))
    for note in notes_on_settings(args.evaluations):
        print(f"note: {note}", file=sys.stderr)
    if args.output is not None:
        for path in [*write_comparison(compared, args.output), *write_forest(compared, args.output)]:
            print(f"wrote {path}")
