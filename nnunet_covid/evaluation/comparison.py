"""Does one method beat another on the same cases? Reading score tables back, comparing every pair, tables of it.

The statistics themselves are pure functions in ``paired_statistics``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.csv_files import read_csv, write_csv
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.metrics import METRICS, Metric, Units, column_name
from nnunet_covid.evaluation.paired_statistics import CONFIDENCE, PairedStatistics, holm, paired_statistics
from nnunet_covid.evaluation.tables import CSV_NAME, JSON_NAME, aligned
from nnunet_covid.files import counted, some_of, write_json

SIGNIFICANCE = 0.05
DEFAULT_METRICS = ("dice", "nsd", "hd95")
DESCRIPTIVE = ("case", "class", "empty", "tp", "fp", "fn", "tn")
# Two tables made with different values of these do not hold the same quantities.
COMPARABLE_SETTINGS = ("nsd_tolerance", "empty_policy", "length_unit", "size_unit")
HEAD = ("metric", "class", "A", "B", "n", "mean A", "mean B", "A − B", "95 % interval", "t-test p", "Wilcoxon p")
EFFECT_HEAD = ("Holm p", "d_z", "rank-bis.", "better")


AGAIN = "evaluate again, a spreadsheet may have saved it otherwise"


@dataclass(frozen=True)
class PairComparison:
    """Method A against method B in one metric and class. ``column`` carries the unit.

    ``holm_p`` is Wilcoxon's p adjusted for all pairs and classes that were tested in this metric.
    """

    a: str
    b: str
    class_name: str
    metric: Metric
    column: str
    statistics: PairedStatistics
    holm_p: float = float("nan")

    @property
    def heading(self) -> str:
        """Heading of the metric with its unit, for plots."""
        unit = self.column.removeprefix(self.metric.key).lstrip("_")
        return f"{self.metric.heading} [{unit}]" if unit else self.metric.heading

    @property
    def better(self) -> str | None:
        """The method that is better beyond chance, else None.

        It takes both: adjusted p below 0.05, and an interval of the mean difference that does not hold 0.
        """
        low, high = self.statistics.interval
        if not (self.holm_p < SIGNIFICANCE and (low > 0 or high < 0)):
            return None
        return self.a if (low > 0) == (self.metric.best > 0) else self.b


def compare_evaluations(
    evaluations: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    common_cases: bool = False,
    seed: int = 0,
) -> list[PairComparison]:
    """Compare all pairs of evaluations, in the order given.

    Args:
        evaluations: folders written by ``evaluate``, or their ``cases.csv`` files.
        names: of the methods; by default those of the folders.
        metrics: keys such as ``dice``, or ``all``.
        common_cases: use the cases that all evaluations have instead of refusing different sets.
        seed: of the bootstrap.

    Raises:
        UserError: for fewer than two methods, unknown metrics, different cases or settings, damaged files.
    """
    paths = [Path(e) for e in evaluations]
    if len(paths) < 2:
        raise UserError("a comparison needs at least two evaluations")
    labels = list(names) if names is not None else _names_of(paths)
    if len(labels) != len(paths) or len(set(labels)) < len(labels):
        raise UserError(f"need a different name for each of the {len(paths)} evaluations, got: {', '.join(labels)}")
    tables = aligned_tables(
        [read_score_table(p, n) for p, n in zip(paths, labels, strict=True)], common_cases=common_cases
    )
    compared: list[PairComparison] = []
    for metric, column in _columns(tables, metrics):
        rows = [_compare(a, b, c, metric, column, seed) for c in tables[0].classes for a, b in combinations(tables, 2)]
        adjusted = holm([row.statistics.wilcoxon_p for row in rows])
        compared += [replace(row, holm_p=p) for row, p in zip(rows, adjusted, strict=True)]
    return compared


def _compare(a: ScoreTable, b: ScoreTable, class_name: str, metric: Metric, column: str, seed: int) -> PairComparison:
    chosen = np.array([c == class_name for _, c in a.rows])
    statistics = paired_statistics(a.values[column][chosen], b.values[column][chosen], seed=seed)
    return PairComparison(a.name, b.name, class_name, metric, column, statistics)


def _columns(tables: Sequence[ScoreTable], metrics: Sequence[str]) -> list[tuple[Metric, str]]:
    """Metrics and their columns, which every table must have."""
    comparable = {m.key: m for m in METRICS if m.best}
    everything = "all" in metrics
    unknown = sorted(set(metrics) - set(comparable) - {"all"})
    if unknown:
        raise UserError(f"unknown metric {', '.join(unknown)}; known are {', '.join(comparable)} and all")
    found = []
    for key in comparable if everything else metrics:
        names = {column_name(comparable[key], Units(length, "ml")) for length in ("mm", "px")}
        column = next((n for n in sorted(names) if all(n in t.values for t in tables)), None)
        if column is not None:
            found.append((comparable[key], column))
        elif not everything:
            lacking = [t.name for t in tables if not names & set(t.values)]
            reason = f"is missing in {', '.join(lacking)}" if lacking else "is in mm in one and in pixels in another"
            raise UserError(f"metric {key} {reason}")
    return found


def _names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest tails of the paths that tell them apart."""
    parts = [(p.parent if p.suffix == ".csv" else p).resolve().parts for p in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in paths]


def comparison_table(compared: Sequence[PairComparison]) -> str:
    """One line per metric, class and pair, and below it how to read the line."""
    lines = aligned([*HEAD, *EFFECT_HEAD], [_row(c) for c in compared])
    notes = [
        "",
        f"A − B with its bootstrap {100 * CONFIDENCE:.0f} % interval; "
        "Holm: Wilcoxon's p adjusted for all pairs and classes of a metric.",
        f"'better' is named where the adjusted p is below {SIGNIFICANCE} and the interval does not hold 0.",
    ]
    numbers = {c.statistics.n for c in compared}
    if 0 in numbers:
        notes.append("Where n is 0, no case has a value of both: there is nothing to compare.")
    if 0 < (smallest := min(numbers - {0}, default=0)) < 6:
        notes.append(f"With {counted(smallest, 'case')} Wilcoxon's p cannot fall below {2 ** (1 - smallest):g}.")
    return "\n".join([*lines, *notes])


def write_comparison(compared: Sequence[PairComparison], folder: Path) -> list[Path]:
    """Write ``comparison.csv`` and ``comparison.json`` into an existing folder; returns the files."""
    records = [comparison_record(c) for c in compared]
    table, document = folder / "comparison.csv", folder / "comparison.json"
    write_csv(table, records[0], (record.values() for record in records))
    write_json(document, records)
    return [table, document]


def write_forest(compared: Sequence[PairComparison], folder: Path) -> list[Path]:
    """Draw ``forest.png``, a panel per metric and a row per class and pair of methods; returns the file."""
    from nnunet_covid.figures.scores import Difference, draw_forest  # matplotlib takes long to import

    several_classes = len({c.class_name for c in compared}) > 1
    panels: dict[str, list[Difference]] = {}
    more_is_better: dict[str, bool] = {}
    for c in compared:
        name = f"{c.class_name}: {c.a} − {c.b}" if several_classes else f"{c.a} − {c.b}"
        better = "" if c.better is None else "first" if c.better == c.a else "second"
        row = Difference(name, c.statistics.mean_difference, c.statistics.interval, better)
        panels.setdefault(c.heading, []).append(row)
        more_is_better[c.heading] = c.metric.best > 0
    return [draw_forest(folder / "forest.png", panels, list(more_is_better.values()))]


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


def _score(text: str) -> float:
    """A score; an empty cell stands for an undefined one."""
    value = float("nan" if text == "" else text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def read_score_table(path: Path, name: str) -> ScoreTable:
    """The ``cases.csv`` of an evaluation, given the file or its folder.

    Raises:
        UserError: if the file is missing, or it or the summary beside it was not written by ``nnunet-covid evaluate``.
    """
    file = _table_file(path)
    columns, rows = read_csv(file, remedy="name a folder written by 'evaluate -o'")
    if not rows or not set(DESCRIPTIVE) <= set(columns):
        raise UserError(f"{file}: is not a table written by 'nnunet-covid evaluate'; {AGAIN}")
    keys = tuple((row["case"], row["class"]) for row in rows)
    if len(set(keys)) < len(keys):
        raise UserError(f"{file}: lists a case twice")
    try:
        values = {c: np.array([_score(r[c]) for r in rows]) for c in columns if c not in DESCRIPTIVE}
    except (TypeError, ValueError) as e:
        raise UserError(f"{file}: holds something that is no number ({e}); {AGAIN}") from e
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
        if not common_cases:
            _check_cases(first, other)
    everywhere = set(first.rows).intersection(*(t.rows for t in tables[1:]))
    shared = [row for row in first.rows if row in everywhere]
    if not shared:
        raise UserError("the tables have no case in common")
    return [_reordered(table, shared) for table in tables]


def _check_cases(first: ScoreTable, other: ScoreTable) -> None:
    for here, there in ((first, other), (other, first)):
        listed = set(there.rows)
        missing = [f"{case} ({cls})" for case, cls in here.rows if (case, cls) not in listed]
        if missing:
            raise UserError(
                f"'{there.name}' lacks {some_of(missing)}, which '{here.name}' has; "
                "compare the common cases only, or evaluate the same ones",
                about="common_cases",
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
