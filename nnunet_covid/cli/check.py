"""Look for what nnU-Net's integrity check does not see.

Slices of one patient on both sides of a split, near-duplicates between training and test images, masks on air or
mirrored, labels off the table, images that lie differently from the rest. The exit status is 1 if anything is found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_covid.dataset_check.checks import run_checks, write_report
from nnunet_covid.dataset_check.dataset import open_dataset


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid check``."""
    parser.add_argument("dataset", metavar="DATASET", help="number, name or folder of a raw data set")
    text = "folder for pictures and findings.json (default: check_<DATASET>)"
    parser.add_argument("-o", "--output", type=Path, help=text)


def check(args: argparse.Namespace) -> int:
    """Check one data set and tell."""
    dataset = open_dataset(args.dataset)
    name, number = dataset.folder.name, len(dataset.cases)
    findings = run_checks(dataset)
    for finding in findings:
        print(f"{finding.check}: {finding.message}")
    output = args.output or Path(f"check_{name}")
    write_report(findings, output)
    if not findings:
        print(f"{name}: nothing found in {number} cases")
        return 0
    print(f"{name}: {len(findings)} findings in {number} cases, pictures in {output}")
    return 1
