"""Reading back the tables that an evaluation wrote, and lining up the same cases of several methods."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.pairing import some
from nnunet_covid.evaluation.tables import CSV_NAME, JSON_NAME

DESCRIPTIVE = ("case", "class", "empty", "tp", "fp", "fn", "tn")
# Two tables made with different values of these do not hold the same quantities.
COMPARABLE_SETTINGS = ("nsd_tolerance", "empty_policy", "length_unit", "size_unit")


@dataclass(frozen=True)
class ScoreTable:
    """``values[column][i]`` belongs to ``rows[i]``, a pair of case and class; NaN where there is no value."""

    name: str
    rows: tuple[tuple[str, str], ...]
    values: dict[str, NDArray[np.float64]]
    settings: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Names of the classes in order of appearance."""
        return list(dict.fromkeys(class_name for _, class_name in self.rows))


def read_score_table(path: Path, name: str) -> ScoreTable:
    """The ``cases.csv`` of an evaluation, given the file or its folder.

    Raises:
        UserError: if the file is missing, or it or the summary beside it was not written by ``nnunet-covid evaluate``.
    """
    file = _table_file(path)
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror}); name a folder written by 'evaluate -o'") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{file}: is not a table written by 'nnunet-covid evaluate' ({e})") from e
    if not rows or not set(DESCRIPTIVE) <= set(columns):
        raise UserError(f"{file}: is not a table written by 'nnunet-covid evaluate'")
    keys = tuple((row["case"], row["class"]) for row in rows)
    if len(set(keys)) < len(keys):
        raise UserError(f"{file}: lists a case twice")
    try:
        values = {c: np.array([float(r[c] or "nan") for r in rows]) for c in columns if c not in DESCRIPTIVE}
    except (TypeError, ValueError) as e:
        raise UserError(f"{file}: holds something that is no number ({e})") from e
    return ScoreTable(name, keys, values, _settings_beside(file))


def aligned_tables(tables: Sequence[ScoreTable], *, common_cases: bool = False) -> list[ScoreTable]:
    """The tables with their rows in the order of the first.

    Args:
        tables: at least two.
        common_cases: drop what is not in every table instead of refusing it.

    Raises:
        UserError: if the tables list different cases or were made with different settings.
    """
    first = tables[0]
    for other in tables[1:]:
        _check_settings(first, other)
        _check_cases(first, other, common_cases=common_cases)
    everywhere = set(first.rows).intersection(*(t.rows for t in tables[1:]))
    shared = [row for row in first.rows if row in everywhere]
    if not shared:
        raise UserError("the tables have no case in common")
    return [_reordered(table, shared) for table in tables]


def _check_cases(first: ScoreTable, other: ScoreTable, *, common_cases: bool) -> None:
    if common_cases:
        return
    for here, there in ((first, other), (other, first)):
        listed = set(there.rows)
        missing = [f"{case} ({cls})" for case, cls in here.rows if (case, cls) not in listed]
        if missing:
            raise UserError(
                f"'{there.name}' lacks {some(missing)}, which '{here.name}' has; "
                "--common-cases compares the cases that all of them have"
            )


def notes_on_settings(paths: Sequence[Path]) -> list[str]:
    """A line for each evaluation that has no summary, so that its settings could not be compared."""
    return [
        f"{path}: no {JSON_NAME} beside its table, so whether its settings ({', '.join(COMPARABLE_SETTINGS)}) are "
        "those of the others is not known"
        for path in paths
        if not _summary_beside(_table_file(path)).exists()
    ]


def _check_settings(first: ScoreTable, other: ScoreTable) -> None:
    if not (first.settings and other.settings):
        return
    for key in COMPARABLE_SETTINGS:
        mine, theirs = first.settings[key], other.settings[key]
        if mine != theirs:
            raise UserError(
                f"'{first.name}' and '{other.name}' were evaluated with different {key.replace('_', ' ')}: "
                f"{mine} and {theirs}"
            )


def _reordered(table: ScoreTable, rows: Sequence[tuple[str, str]]) -> ScoreTable:
    position = {row: i for i, row in enumerate(table.rows)}
    order = [position[row] for row in rows]
    return ScoreTable(table.name, tuple(rows), {c: v[order] for c, v in table.values.items()}, table.settings)


def _settings_beside(file: Path) -> dict[str, Any]:
    """The comparable settings of the evaluation from the summary beside its table; none without a summary."""
    summary = _summary_beside(file)
    try:
        settings = json.loads(summary.read_text(encoding="utf-8"))["settings"]
        return {key: settings[key] for key in COMPARABLE_SETTINGS}
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise UserError(f"{summary}: cannot be read ({e.strerror}); evaluate again") from e
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{summary}: is not a summary written by 'nnunet-covid evaluate'; evaluate again") from e


def _table_file(path: Path) -> Path:
    return path / CSV_NAME if path.is_dir() else path


def _summary_beside(file: Path) -> Path:
    return file.parent / JSON_NAME
