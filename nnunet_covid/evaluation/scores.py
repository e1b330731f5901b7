"""All metrics of one case, from arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation import confusion
from nnunet_covid.evaluation.confusion import (
    ConfusionCounts,
    Emptiness,
    EmptyPolicy,
    confusion_counts,
    emptiness,
    left_out,
)
from nnunet_covid.evaluation.labels import EvaluatedClass, LabelScheme
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.evaluation.surface_distance import surface_distances
from nnunet_covid.evaluation.toolbox import ProbabilityMap, map_scores
from nnunet_covid.geometry import Geometry

NAN = float("nan")
CUBIC_MILLIMETRES_PER_MILLILITRE = 1000.0
# Undefined without reference foreground; the other metrics have a value of their own there.
GOVERNED_BY_POLICY = frozenset({"dice", "iou", "sensitivity", "precision", "hd95", "nsd"})


@dataclass(frozen=True)
class Settings:
    """What the user may choose: τ of the NSD in the unit of the spacing, the policy for empty masks, and whether to
    measure distances at all.
    """

    tolerance: float = 3.0
    empty_policy: EmptyPolicy = EmptyPolicy.SCORE
    distances: bool = True


@dataclass(frozen=True)
class CaseScore:
    """Scores of one class of one case: a row of the CSV file. NaN where the policy leaves a case out."""

    case: str
    class_name: str
    empty: Emptiness
    counts: ConfusionCounts
    values: dict[str, float] = field(default_factory=dict)


def score_case(
    case: str,
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    geometry: Geometry | None,
    scheme: LabelScheme,
    settings: Settings,
    maps: Mapping[str, ProbabilityMap] | None = None,
) -> list[CaseScore]:
    """Score every class of one case.

    Axes of length one are dropped first: a single slice stored as a volume has a border in its plane only.

    Args:
        case: name of the case.
        prediction: label map, shape (rows, columns) or (slices, rows, columns).
        reference: label map of the same shape.
        geometry: of both; None for images without spacing, which are measured in pixels.
        scheme: classes to score, and the ignore label of the reference.
        settings: tolerance and policy.
        maps: probability map by class name, each of the label maps' shape.

    Raises:
        ValueError: if shapes differ.
    """
    units = Units.of(geometry, reference.ndim)
    edges = (1.0,) * reference.ndim if geometry is None else geometry.spacing[::-1]
    spacing = tuple(s for s, n in zip(edges, reference.shape, strict=True) if n > 1) or edges[:1]

    def size(voxels: int) -> float:
        return voxels * math.prod(edges) / (CUBIC_MILLIMETRES_PER_MILLILITRE if units.size == "ml" else 1.0)

    ignored = None if scheme.ignore is None else _flattened(reference == scheme.ignore)
    scores = []
    for cls in scheme.classes:
        masks = _flattened(cls.mask(prediction)), _flattened(cls.mask(reference))
        score = _score_class(case, cls, *masks, ignored, spacing, size, settings)
        if maps is not None:
            score.values.update(map_scores(_flattened(maps[cls.name]), masks[1], ignored))
        scores.append(score)
    return scores


def _score_class(
    case: str,
    cls: EvaluatedClass,
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    ignored: NDArray[np.bool_] | None,
    spacing: tuple[float, ...],
    size: Callable[[int], float],
    settings: Settings,
) -> CaseScore:
    counts = confusion_counts(prediction, reference, None if ignored is None else ~ignored)
    empty = emptiness(counts.prediction_size, counts.reference_size)
    predicted, expected = size(counts.prediction_size), size(counts.reference_size)
    values = {
        "dice": confusion.dice(counts),
        "iou": confusion.iou(counts),
        "sensitivity": confusion.sensitivity(counts),
        "specificity": confusion.specificity(counts),
        "precision": confusion.precision(counts),
        "label_mae": confusion.label_mae(counts),
        "reference_volume": expected,
        "predicted_volume": predicted,
        "volume_error": predicted - expected,
    }
    if settings.distances:
        distances = surface_distances(prediction, reference, spacing, ignored)
        values |= {"hd95": distances.hd95(), "nsd": distances.nsd(settings.tolerance)}
    if left_out(empty, settings.empty_policy):
        values |= dict.fromkeys(GOVERNED_BY_POLICY & values.keys(), NAN)
    return CaseScore(case, cls.name, empty, counts, values)


def _flattened(array: NDArray) -> NDArray:
    """The array without its axes of length one, but with at least one axis."""
    return np.atleast_1d(array.squeeze())
