"""A comparison as text: a table for the terminal with a verdict in words, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_covid.evaluation.comparison import SIGNIFICANCE, PairComparison
from nnunet_covid.evaluation.paired_statistics import CONFIDENCE
from nnunet_covid.evaluation.tables import aligned, replaced

HEAD = ("metric", "class", "A", "B", "n", "mean A", "mean B", "A − B", "95 % interval", "t-test p", "Wilcoxon p")
EFFECT_HEAD = ("Holm p", "d_z", "rank-bis.", "better")


def comparison_table(compared: Sequence[PairComparison]) -> str:
    """One line per metric, class and pair, and below it how to read the line."""
    lines = aligned([*HEAD, *EFFECT_HEAD], [_row(c) for c in compared])
    notes = [
        "",
        f"A − B with its bootstrap {100 * CONFIDENCE:.0f} % interval; "
        "Holm: Wilcoxon's p adjusted for all pairs and classes of a metric.",
        f"'better' is named where the adjusted p is below {SIGNIFICANCE} and the interval does not hold 0.",
    ]
    smallest = min(c.statistics.n for c in compared)
    if smallest < 6:
        notes.append(f"With {smallest} cases Wilcoxon's p cannot fall below {2 ** (1 - smallest):g}.")
    return "\n".join([*lines, *notes])


def write_comparison(compared: Sequence[PairComparison], folder: Path) -> list[Path]:
    """Write ``comparison.csv`` and ``comparison.json`` into an existing folder; returns the files."""
    records = [comparison_record(c) for c in compared]
    table, document = folder / "comparison.csv", folder / "comparison.json"
    with replaced(table) as stream:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in record.items()} for record in records)
    with replaced(document) as stream:
        json.dump(records, stream, indent=2, allow_nan=False)
        stream.write("\n")
    return [table, document]


def comparison_record(c: PairComparison) -> dict[str, Any]:
    """A comparison as a flat record; None where there is no finite value."""
    fields = asdict(c.statistics)
    low, high = fields.pop("interval")
    record = {"metric": c.column, "class": c.class_name, "a": c.a, "b": c.b, **fields}
    record |= {"interval_low": low, "interval_high": high, "holm_p": c.holm_p, "better": c.better}
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in record.items()}


def _row(c: PairComparison) -> list[str]:
    s, digits = c.statistics, c.metric.digits
    low, high = s.interval
    return [
        c.column,
        c.class_name,
        c.a,
        c.b,
        str(s.n),
        *(_number(v, digits) for v in (s.mean_a, s.mean_b)),
        _number(s.mean_difference, digits, sign=True),
        f"[{_number(low, digits, sign=True)}, {_number(high, digits, sign=True)}]",
        *(_p_value(p) for p in (s.t_test_p, s.wilcoxon_p, c.holm_p)),
        _number(s.cohen_dz, 2, sign=True),
        _number(s.rank_biserial, 2, sign=True),
        c.better or "–",
    ]


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    if value != value:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _p_value(p: float) -> str:
    if p != p:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
