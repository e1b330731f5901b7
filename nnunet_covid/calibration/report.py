"""What a calibration found, as a table, as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.special import expit

from nnunet_covid.calibration.fit import EDGES
from nnunet_covid.calibration.logits import Calibration
from nnunet_covid.calibration.measure import ClassMeasurement, Measurement
from nnunet_covid.evaluation.paired_statistics import PairedStatistics
from nnunet_covid.files import write_json

JSON_NAME = "calibration.json"
PICTURE_NAME = "reliability.png"


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
    """Write everything as JSON, case by case."""
    names = [each.name for each in found.classes]
    content = {
        "model": model.name,
        "classes": {
            each.name: {**_operating_point(found.calibration, k), **_expected(each)}
            for k, each in enumerate(found.classes)
        },
        "mean_dice": _paired(found.mean_dice),
        "fitted_without": {
            part: {name: _operating_point(calibration, k) for k, name in enumerate(names)}
            for part, calibration in found.nested.items()
        },
        "dice_of_cases": {
            case: {
                name: {"before": float(row[0]), "after": float(row[1])} for name, row in zip(names, rows, strict=True)
            }
            for case, rows in found.case_dice.items()
        },
    }
    write_json(folder / JSON_NAME, content)
    return folder / JSON_NAME


def write_reliability_diagram(found: Measurement, folder: Path) -> Path:
    """Draw reliability before and after, and Dice over the threshold; returns the file."""
    # Matplotlib doubles the time to start, and every process that reads cases would pay it.
    from nnunet_covid.figures.reliability import Bins, ReliabilityPanel, draw_reliability

    panels = []
    for each, threshold in zip(found.classes, found.calibration.thresholds, strict=True):
        before, after = (Bins(r.voxels, r.probability, r.inside) for r in (each.before, each.after))
        panels.append(ReliabilityPanel(each.name, before, after, expit(EDGES[:-1]), each.dice_curve, threshold))
    title = f"Calibration on {len(found.case_dice)} validation cases, nested"
    return draw_reliability(panels, folder / PICTURE_NAME, title)


def _operating_point(calibration: Calibration, position: int) -> dict[str, float]:
    return {"threshold": calibration.thresholds[position], "temperature": calibration.temperatures[position]}


def _expected(each: ClassMeasurement) -> dict[str, Any]:
    errors = {"before": each.before.expected_calibration_error, "after": each.after.expected_calibration_error}
    return {"dice": _paired(each.dice), "mae": _paired(each.mae), "expected_calibration_error": errors}


def _paired(paired: PairedStatistics) -> dict[str, Any]:
    return {
        "cases": paired.n,
        "before": paired.mean_b,
        "after": paired.mean_a,
        "change": paired.mean_difference,
        "interval": list(paired.interval),
        "wilcoxon_p": paired.wilcoxon_p,
    }
