"""Calibrate a model on its cross-validation and measure the change on cases that the numbers have not seen.

Nested: for every part (a fold, or a share of a single fold's cases) temperature and thresholds are fitted on all others
and measured on it. The calibration for use is fitted on all cases; what the parts measured is what to expect of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nnunet_covid.calibration.fit import CaseCounts, Reliability, classes_by_head, dice_curves, fit
from nnunet_covid.calibration.logits import Calibration, log_odds
from nnunet_covid.calibration.validation import Validation, ValidationCase
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.confusion import confusion_counts, dice
from nnunet_covid.evaluation.labels import LabelScheme
from nnunet_covid.evaluation.paired_statistics import PairedStatistics, paired_statistics
from nnunet_covid.files import map_in_processes


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
    probabilities, reference = validation.read(case)
    return CaseCounts.of_case(probabilities, reference, validation.scheme)


def _score(validation: Validation, task: tuple[ValidationCase, Calibration]) -> NDArray[np.float64]:
    """Dice of every class, (classes, 2), without and with a calibration."""
    case, calibration = task
    probabilities, reference = validation.read(case)
    to_labels = validation.label_manager.convert_probabilities_to_segmentation
    maps = to_labels(probabilities), to_labels(calibrated_probabilities(probabilities, calibration))
    return np.stack([_dice_of(each, reference, validation.scheme) for each in maps], axis=1)


def calibrated_probabilities(probabilities: NDArray[np.floating], calibration: Calibration) -> NDArray[np.floating]:
    """What nnU-Net saves, (heads, *spatial), with the calibration in the checkpoint.

    Voxels outside the bounding box that nnU-Net crops to would stay background there and become nearly so here.
    """
    odds = log_odds(probabilities, softmax=calibration.softmax)
    calibrated = np.stack([calibration.of_log_odds(each, k) for k, each in enumerate(odds)])
    if not calibration.softmax:
        return expit(calibrated)
    logits = np.concatenate([np.zeros_like(calibrated[:1]), calibrated])
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def _dice_of(label_map: NDArray, reference: NDArray, scheme: LabelScheme) -> NDArray[np.float64]:
    valid = None if scheme.ignore is None else reference != scheme.ignore
    counts = (confusion_counts(c.mask(label_map), c.mask(reference), valid) for c in classes_by_head(scheme))
    return np.array([dice(each) for each in counts])
