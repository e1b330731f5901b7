"""Calibrate a model on its cross-validation, measure the change on cases that the numbers have not seen, report it.

Nested: for every part (a fold, or a share of a single fold's cases) temperature and thresholds are fitted on all others
and measured on it. The calibration for use is fitted on all cases; what the parts measured is what to expect of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nnunet_covid.calibration.fit import (
    EDGES,
    Calibration,
    CaseCounts,
    Reliability,
    calibrated_probabilities,
    classes_by_head,
    dice_curves,
    fit,
)
from nnunet_covid.calibration.model_folder import Validation, ValidationCase
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.confusion import confusion_counts, dice
from nnunet_covid.evaluation.labels import LabelScheme
from nnunet_covid.evaluation.paired_statistics import PairedStatistics, paired_statistics
from nnunet_covid.files import write_json
from nnunet_covid.shared_work import map_in_processes


@dataclass(frozen=True)
class ClassMeasurement:
    """One class before and after calibration.

    Attributes:
        dice: Of label maps as nnU-Net writes them, calibrated against uncalibrated, paired over cases.
        mae: Of the probability map, likewise.
        before, after: Reliability of the map over all cases; after, each case by what its part has not seen.
        dice_curve: Mean Dice over thresholds at the bin edges of ``fit``, uncalibrated.
    """

    name: str
    dice: PairedStatistics
    mae: PairedStatistics
    before: Reliability
    after: Reliability
    dice_curve: NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """The calibration of a model and what it is expected to change.

    Attributes:
        calibration: Fitted on all cases.
        nested: By part, fitted on the others.
        classes: In the order of the network's heads.
        mean_dice: Of the mean over the classes of each case.
        case_dice: Case to Dice (classes, 2) before and after.
    """

    calibration: Calibration
    nested: dict[str, Calibration]
    classes: tuple[ClassMeasurement, ...]
    mean_dice: PairedStatistics
    case_dice: dict[str, NDArray[np.float64]]


def measure(
    validation: Validation,
    *,
    threshold: bool = True,
    processes: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda done, _: done,
) -> Measurement:
    """Fit and measure.

    Args:
        validation: The cases; two parts at least.
        threshold: ``False`` fits temperatures alone.
        processes: How many share the reading of cases.
        progress: Wraps what yields a result per case, of a number of cases.

    Raises:
        UserError: If a file cannot be read, or no case shows a class.
    """
    cases, softmax = validation.cases, not validation.scheme.has_regions
    counts = list(progress(map_in_processes(partial(_count, validation), cases, processes), len(cases)))
    if not sum(int(each.sizes.sum()) for each in counts):
        raise UserError("no reference of the validation cases shows any class: there is nothing to fit")
    by_part: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        by_part.setdefault(case.part, []).append(i)
    nested = {
        part: fit([counts[i] for i in range(len(cases)) if i not in own], softmax=softmax, threshold=threshold)
        for part, own in by_part.items()
    }
    tasks = [(case, nested[case.part]) for case in cases]
    scores = list(progress(map_in_processes(partial(_score, validation), tasks, processes), len(cases)))
    table = np.stack(scores)
    used = [nested[case.part] for case in cases]
    return Measurement(
        fit(counts, softmax=softmax, threshold=threshold),
        nested,
        tuple(
            _class_measurement(each.name, k, counts, used, table[:, k])
            for k, each in enumerate(classes_by_head(validation.scheme))
        ),
        paired_statistics(table[:, :, 1].mean(axis=1), table[:, :, 0].mean(axis=1)),
        {case.name: score for case, score in zip(cases, scores, strict=True)},
    )


def _class_measurement(
    name: str, position: int, counts: list[CaseCounts], used: list[Calibration], scores: NDArray[np.float64]
) -> ClassMeasurement:
    """Of the class at a position; ``scores`` are (cases, 2) Dice before and after."""
    nothing = Calibration.identity(len(used[0].thresholds), softmax=used[0].softmax)
    before = [Reliability.of_counts(each, position, nothing) for each in counts]
    after = [Reliability.of_counts(each, position, own) for each, own in zip(counts, used, strict=True)]
    mae_before, mae_after = (np.array([each.mae for each in some]) for some in (before, after))
    return ClassMeasurement(
        name,
        paired_statistics(scores[:, 1], scores[:, 0]),
        paired_statistics(mae_after, mae_before),
        reduce(add, before),
        reduce(add, after),
        dice_curves(counts)[position],
    )


def _count(validation: Validation, case: ValidationCase) -> CaseCounts:
    return CaseCounts.of_case(*validation.read(case), validation.scheme)


def _score(validation: Validation, task: tuple[ValidationCase, Calibration]) -> NDArray[np.float64]:
    """Dice of every class, (classes, 2), without and with a calibration."""
    case, calibration = task
    probabilities, reference = validation.read(case)
    to_labels = validation.label_manager.convert_probabilities_to_segmentation
    both = probabilities, calibrated_probabilities(probabilities, calibration)
    return np.stack([_dice_of(to_labels(p), reference, validation.scheme) for p in both], axis=1)


def _dice_of(label_map: NDArray, reference: NDArray, scheme: LabelScheme) -> NDArray[np.float64]:
    valid = None if scheme.ignore is None else reference != scheme.ignore
    counts = (confusion_counts(c.mask(label_map), c.mask(reference), valid) for c in classes_by_head(scheme))
    return np.array([dice(each) for each in counts])


def table(found: Measurement) -> str:
    """A block per class: its operating point and what it is expected to change."""
    parts = len(found.nested)
    folds = all(part.startswith("fold_") for part in found.nested)
    lines = [
        f"{len(found.case_dice)} validation cases in {parts} {'folds' if folds else 'parts of one fold'}, "
        "each measured with what the others fit; change: mean over cases [95 % interval]"
    ]
    for k, each in enumerate(found.classes):
        threshold, temperature = found.calibration.thresholds[k], found.calibration.temperatures[k]
        read_at = "0.5" if threshold == 0.5 else f"{threshold:.3f} instead of 0.5"
        lines += [
            "",
            f"{each.name}: threshold {read_at}, temperature {temperature:.2f}",
            f"  {'':<26}{'before':>8}{'after':>8}  change",
            _row("Dice", each.dice, 3),
            _row("MAE of the map", each.mae, 4),
            f"  {'expected calibration error':<26}{each.before.expected_calibration_error:>8.4f}"
            f"{each.after.expected_calibration_error:>8.4f}",
        ]
    if len(found.classes) > 1:
        lines += ["", _row("Dice, mean of the classes", found.mean_dice, 3)]
    return "\n".join(lines)


def _row(heading: str, paired: PairedStatistics, digits: int) -> str:
    low, high = paired.interval
    change = f"{paired.mean_difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"  {heading:<26}{paired.mean_b:>8.{digits}f}{paired.mean_a:>8.{digits}f}  {change}"


def write_report(found: Measurement, model: Path, folder: Path) -> Path:
    """Write everything as JSON, case by case; returns the file."""
    names = [each.name for each in found.classes]

    def operating_points(calibration: Calibration) -> dict[str, dict[str, Any]]:
        points = zip(names, calibration.thresholds, calibration.temperatures, strict=True)
        return {name: {"threshold": t, "temperature": temperature} for name, t, temperature in points}

    def expected(each: ClassMeasurement) -> dict[str, Any]:
        errors = {"before": each.before.expected_calibration_error, "after": each.after.expected_calibration_error}
        return {"dice": _paired(each.dice), "mae": _paired(each.mae), "expected_calibration_error": errors}

    points = operating_points(found.calibration)
    content = {
        "model": model.name,
        "classes": {each.name: points[each.name] | expected(each) for each in found.classes},
        "mean_dice": _paired(found.mean_dice),
        "fitted_without": {part: operating_points(calibration) for part, calibration in found.nested.items()},
        "dice_of_cases": {
            case: {
                name: {"before": float(row[0]), "after": float(row[1])} for name, row in zip(names, rows, strict=True)
            }
            for case, rows in found.case_dice.items()
        },
    }
    path = folder / "calibration.json"
    write_json(path, content)
    return path


def write_reliability_diagram(found: Measurement, folder: Path) -> Path:
    """Draw reliability before and after, and Dice over the threshold; returns the file."""
    # Matplotlib doubles the time to start, and every process that reads cases would pay it.
    from nnunet_covid.figures.reliability import Bins, ReliabilityPanel, draw_reliability

    panels, thresholds = [], expit(EDGES[:-1])
    for each, threshold in zip(found.classes, found.calibration.thresholds, strict=True):
        before, after = (Bins(r.voxels, r.probability, r.inside) for r in (each.before, each.after))
        panels.append(ReliabilityPanel(each.name, before, after, thresholds, each.dice_curve, threshold))
    title = f"Calibration on {len(found.case_dice)} validation cases, nested"
    return draw_reliability(panels, folder / "reliability.png", title)


def _paired(paired: PairedStatistics) -> dict[str, Any]:
    return {
        "cases": paired.n,
        "before": paired.mean_b,
        "after": paired.mean_a,
        "change": paired.mean_difference,
        "interval": list(paired.interval),
        "wilcoxon_p": paired.wilcoxon_p,
    }
