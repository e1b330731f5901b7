"""Averages over cases, each with the number of cases behind it; never pooled over voxels."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.metrics import METRICS, column_name


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
    units = evaluation.input.units
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
