"""The scores over cases: their averages, a table for the terminal, CSV per case, JSON summary, and the whole report.

Averages are over cases, each with the number of cases behind it; never pooled over voxels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_covid.csv_files import write_csv
from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.metrics import METRIC, METRICS, Group, Units, column_name, digits, heading
from nnunet_covid.evaluation.scores import CaseScore
from nnunet_covid.files import writable_folder, write_json

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


@dataclass(frozen=True)
class MetricSummary:
    """Statistics of a metric over the ``n`` cases that have a value, NaN without any; ``std`` is the sample's."""

    n: int
    mean: float
    std: float
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class ClassSummary:
    """One class: cases, how many of them have an empty mask on which side, and statistics by metric key."""

    cases: int
    empty_reference_only: int
    empty_prediction_only: int
    empty_both: int
    metrics: dict[str, MetricSummary]


@dataclass(frozen=True)
class Summary:
    """Statistics by class name, and the plain mean of the class means where there is more than one class."""

    cases: int
    classes: dict[str, ClassSummary]
    mean_over_classes: dict[str, float]


def summarise(evaluation: Evaluation) -> Summary:
    """Average the scores of every class over its cases."""
    classes = {cls.name: _summarise_class(evaluation, cls.name) for cls in evaluation.input.scheme.classes}
    over_classes: dict[str, float] = {}
    if len(classes) > 1:
        keys = next(iter(classes.values())).metrics
        over_classes = {k: _nan_mean([c.metrics[k].mean for c in classes.values()]) for k in keys}
    return Summary(len(evaluation.input.cases), classes, over_classes)


def summary_as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The summary with settings and units, as plain types; a missing value is None (JSON knows no NaN)."""
    summary = summarise(evaluation)
    units = evaluation.units
    names = {m.key: column_name(m, units) for m in METRICS}
    classes = {}
    for name, c in summary.classes.items():
        fields = asdict(c)
        fields["metrics"] = {names[k]: _without_nan(v) for k, v in fields["metrics"].items()}
        classes[name] = fields
    return {
        "cases": summary.cases,
        "classes": classes,
        "mean_over_classes": _without_nan({names[k]: v for k, v in summary.mean_over_classes.items()}),
        "settings": {
            "nsd_tolerance": evaluation.settings.tolerance,
            "empty_policy": evaluation.settings.empty_policy.value,
            "length_unit": units.length,
            "size_unit": units.size,
            "map_based_metrics": evaluation.input.maps is not None,
        },
        "predictions": str(evaluation.input.predictions),
        "references": str(evaluation.input.references),
    }


def terminal_table(evaluation: Evaluation) -> str:
    """Mean ± standard deviation over cases: one block per group of metrics, a line per metric, a column per class."""
    summary = summarise(evaluation)
    classes, units = summary.classes, evaluation.units
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


def write_cases(evaluation: Evaluation, path: Path) -> None:
    """One row per case and class; an empty cell where the policy leaves a case out."""
    units = evaluation.units
    keys = [m.key for m in METRICS if m.key in evaluation.scores[0].values]
    head = ["case", "class", "empty", "tp", "fp", "fn", "tn", *(column_name(METRIC[k], units) for k in keys)]
    write_csv(path, head, (_csv_row(score, keys) for score in evaluation.scores))


def write_report(
    evaluation: Evaluation, folder: str | Path, *, images: str | Path | None = None, plots: bool = True
) -> list[Path]:
    """Write tables and plots into a folder, which is made if need be.

    Args:
        evaluation: what to report.
        folder: where to write.
        images: folder of the images behind the overlays of the worst cases.
        plots: False writes the tables only.

    Returns:
        The files written.

    Raises:
        UserError: if the folder cannot be made.
    """
    target = Path(folder)
    writable_folder(target)
    written = [target / CSV_NAME, target / JSON_NAME]
    write_cases(evaluation, written[0])
    write_json(written[1], summary_as_json(evaluation))
    if plots:
        # Matplotlib doubles the time to start, and every process that scores cases would pay it.
        from nnunet_covid.evaluation.plots import write_plots

        written += write_plots(evaluation, target, None if images is None else Path(images))
    return written


def _summarise_class(evaluation: Evaluation, name: str) -> ClassSummary:
    scores = [s for s in evaluation.scores if s.class_name == name]
    empty = Counter(s.empty for s in scores)
    keys = [m.key for m in METRICS if m.key in scores[0].values]
    return ClassSummary(
        cases=len(scores),
        empty_reference_only=empty["reference"],
        empty_prediction_only=empty["prediction"],
        empty_both=empty["both"],
        metrics={k: _summarise_metric(np.array([s.values[k] for s in scores])) for k in keys},
    )


def _summarise_metric(values: np.ndarray) -> MetricSummary:
    present = values[~np.isnan(values)]
    n = len(present)
    if n == 0:
        nan = float("nan")
        return MetricSummary(0, nan, nan, nan, nan, nan)
    return MetricSummary(
        n=n,
        mean=float(present.mean()),
        std=float(present.std(ddof=1)) if n > 1 else 0.0,
        median=float(np.median(present)),
        minimum=float(present.min()),
        maximum=float(present.max()),
    )


def _nan_mean(values: list[float]) -> float:
    present = [v for v in values if v == v]
    return sum(present) / len(present) if present else float("nan")


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v != v else v for k, v in values.items()}


def _headline(evaluation: Evaluation) -> str:
    units = evaluation.units
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
