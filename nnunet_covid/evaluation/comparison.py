"""Does one method beat another on the same cases? Every pair of methods, per metric and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.metrics import METRICS, Metric, Units, column_name
from nnunet_covid.evaluation.paired_statistics import PairedStatistics, holm, paired_statistics
from nnunet_covid.evaluation.score_tables import ScoreTable, aligned_tables, read_score_table

SIGNIFICANCE = 0.05
DEFAULT_METRICS = ("dice", "nsd", "hd95")


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
