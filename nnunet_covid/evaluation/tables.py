"""The scores as text: a table for the terminal, CSV per case, JSON summary."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from nnunet_covid.evaluation.case import CaseScore
from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.metrics import METRIC, METRICS, Group, Units, column_name, digits, heading
from nnunet_covid.evaluation.summary import ClassSummary, summarise, summary_as_json

CSV_NAME = "cases.csv"
JSON_NAME = "summary.json"
TITLES: dict[Group, str] = {
    "label": "Label maps",
    "map": "Probability maps",
    "toolbox": "Inf-Net toolbox protocol",
}
TOOLBOX_NOTE = (
    "Inf-Net toolbox protocol: means over 256 thresholds of the min–max normalised map; to be compared with the tables "
    "of those papers, not with a Dice of label maps."
)


def terminal_table(evaluation: Evaluation) -> str:
    """Mean ± standard deviation over cases: one block per group of metrics, a line per metric, a column per class."""
    summary = summarise(evaluation)
    classes, units = summary.classes, evaluation.input.units
    several = bool(summary.mean_over_classes)
    blocks = []
    for group, title in TITLES.items():
        keys = [m.key for m in METRICS if m.group == group and m.key in next(iter(classes.values())).metrics]
        rows = [[heading(METRIC[k], units), *(_cell(c, k, units) for c in classes.values())] for k in keys]
        if several:
            rows = [[*row, _number(summary.mean_over_classes[k], k, units)] for row, k in zip(rows, keys, strict=True)]
        if keys:
            blocks.append([[title, *classes, *(["mean over classes"] if several else [])], *rows])
    widths = column_widths([row for block in blocks for row in block])
    lines = [_headline(evaluation)]
    for head, *rows in blocks:
        lines += ["", *aligned(head, rows, widths)]
    lines += ["", *(_empty_line(name, c, evaluation) for name, c in classes.items())]
    if evaluation.input.maps is not None:
        lines.append(TOOLBOX_NOTE)
    return "\n".join(lines)


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The longest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> list[str]:
    """Lines of a plain table: first column to the left, the others to the right, a rule under the head."""
    w = widths or column_widths([head, *rows])

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(w[0]), *(c.rjust(n) for c, n in zip(row[1:], w[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return [line(head), "  ".join("─" * n for n in w), *map(line, rows)]


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """One row per case and class; an empty cell where the policy leaves a case out."""
    units = evaluation.input.units
    keys = [m.key for m in METRICS if m.key in evaluation.scores[0].values]
    head = ["case", "class", "empty", "tp", "fp", "fn", "tn", *(column_name(METRIC[k], units) for k in keys)]
    with replaced(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(_csv_row(score, keys) for score in evaluation.scores)


def write_json(evaluation: Evaluation, path: Path) -> None:
    """The summary of :func:`summary_as_json` as a file."""
    with replaced(path) as stream:
        json.dump(summary_as_json(evaluation), stream, indent=2, allow_nan=False)
        stream.write("\n")


class replaced:
    """Write a text file under a temporary name and rename it when all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> TextIO:
        self._stream = self._temporary.open("w", encoding="utf-8", newline="")
        return self._stream

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stream.close()
        if error is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def _headline(evaluation: Evaluation) -> str:
    units = evaluation.input.units
    n = len(evaluation.input.cases)
    tolerance = f", NSD at {evaluation.settings.tolerance:g} {units.length}" if evaluation.settings.distances else ""
    note = " (no spacing in these files: distances are in pixels)" if units.length == "px" else ""
    return f"{n} case{'s' if n != 1 else ''}, mean ± standard deviation over cases{tolerance}{note}"


def _cell(summary: ClassSummary, key: str, units: Units) -> str:
    statistics = summary.metrics[key]
    if not statistics.n:
        return "–"
    count = f" (n={statistics.n})" if statistics.n < summary.cases else ""
    return f"{_number(statistics.mean, key, units)} ± {_number(statistics.std, key, units)}{count}"


def _number(value: float, key: str, units: Units) -> str:
    return "–" if value != value else f"{value:.{digits(METRIC[key], units)}f}"


def _empty_line(name: str, c: ClassSummary, evaluation: Evaluation) -> str:
    return (
        f"{name}: empty reference only {c.empty_reference_only}, empty prediction only {c.empty_prediction_only}, "
        f"both empty {c.empty_both} of {c.cases} (policy: {evaluation.settings.empty_policy.value})"
    )


def _csv_row(score: CaseScore, keys: Sequence[str]) -> list[str | int]:
    counts = score.counts
    values = ["" if score.values[k] != score.values[k] else repr(score.values[k]) for k in keys]
    return [score.case, score.class_name, score.empty, counts.tp, counts.fp, counts.fn, counts.tn, *values]
