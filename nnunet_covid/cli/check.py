"""Look for what nnU-Net's integrity check does not see.

Slices of one patient on both sides of a split, near-duplicates between training and test images, masks on air or
mirrored, labels off the table, images that lie differently from the rest. The exit status is 1 if anything is found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.dataset_check.raw_data_set import find_data_set, open_data_set
from nnunet_covid.dataset_check.run_checks import run_checks, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("data_set", metavar="DATASET", help="number, name or folder of a raw data set")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder for pictures and findings.json (default: check_<DATASET>)"
    )


def run(args: argparse.Namespace) -> int:
    """Check one data set and tell."""
    folder = find_data_set(args.data_set)
    data_set = open_data_set(folder)
    findings = run_checks(data_set)
    for finding in findings:
        print(f"{finding.check}: {finding.message}")
    if not findings:
        print(f"{folder.name}: nothing found in {len(data_set.cases)} cases")
        return 0
    output = args.output or Path(f"check_{folder.name}")
    write_report(findings, output)
    print(f"{folder.name}: {len(findings)} findings in {len(data_set.cases)} cases, pictures in {output}")
    return 1
