"""Check the whole installation and end with what to do about each problem.

Looks at Python, package versions, the device, nnU-Net's three folders, the registration, every trainer (through
nnU-Net's own look-up) and the optional parts. Exit status: 0 all is well, 1 there are problems.
"""

from __future__ import annotations

import argparse

from nnunet_covid.nnunet.doctor import examine

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    del args
    findings = []
    for finding in examine():
        print(f"{MARKS[finding.status]}  {finding.subject}: {finding.detail}", flush=True)
        findings.append(finding)
    to_do = [f for f in findings if f.remedy]
    if to_do:
        print("\nWhat to do:")
        for finding in to_do:
            optional = "" if finding.status == "problem" else " (optional)"
            print(f"  {finding.subject}{optional}: {finding.remedy}")
    problems = sum(f.status == "problem" for f in findings)
    print(f"\n{problems} problem{'' if problems == 1 else 's'} found." if problems else "\nAll is well.")
    return 1 if problems else 0
