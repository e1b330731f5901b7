"""Which prediction belongs to which reference: by file name."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid.errors import UserError

NAMES_SHOWN = 5


def case_names(folder: Path, ending: str) -> list[str]:
    """Names of the cases in a folder, sorted: its files with this ending, less the ending.

    Raises:
        UserError: if the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return sorted(p.name[: -len(ending)] for p in folder.iterdir() if p.is_file() and p.name.endswith(ending))


def paired_cases(predictions: Path, references: Path, ending: str) -> list[str]:
    """Names of the cases that both folders hold.

    Raises:
        UserError: if one folder has a case that the other lacks, or there is none at all.
    """
    predicted, expected = case_names(predictions, ending), case_names(references, ending)
    without_prediction = sorted(set(expected) - set(predicted))
    without_reference = sorted(set(predicted) - set(expected))
    problems = []
    if without_prediction:
        problems.append(f"{some(without_prediction)} missing in {predictions}")
    if without_reference:
        problems.append(f"{some(without_reference)} missing in {references}")
    if problems:
        raise UserError(f"the folders do not hold the same '*{ending}' cases: {'; '.join(problems)}")
    if not predicted:
        raise UserError(f"neither {predictions} nor {references} holds a file that ends in '{ending}'")
    return predicted


def some(names: list[str]) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else shown
