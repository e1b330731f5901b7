"""How far a report may be trusted: flags with their thresholds, and the profile of a model that some of them need.

A profile is computed once per model by ``nnunet-covid profile`` from its training images and stands beside its plans.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_json
from nnunet_covid.report.document import Flag
from nnunet_covid.report.model import Labelled
from nnunet_covid.report.quantify import Quantities

FILE = "nnunet_covid_profile.json"
VERSION = 1
QUANTILE = 0.95
"""A scan is far from the training images where it lies farther than 95 of 100 of them do from the others."""
LUNG_LITRES = (1.0, 9.0)
"""Lungs of adults on CT, breathing out as far as they can or in; a choice of this project around published capacities."""
MOST_OUTSIDE = 10.0
MOST_DISAGREEMENT = 0.5
"""Folds that share less than half of the infected voxels; a choice of this project where there is no profile."""


@dataclass(frozen=True)
class Profile:
    """What is usual for a model's training images.

    Attributes:
        digest: Of the model that it belongs to.
        cases: How many training images it is made of.
        quantiles: Percentiles 1, 25, 50, 75 and 99 of the intensities, mean over the images.
        spread: Their standard deviation over the images.
        intensity_distance: Largest usual value of :func:`distance`.
        disagreement: Largest usual disagreement of the folds; None with one fold.
        orientation: Storage order of the training images.
    """

    digest: str
    cases: int
    quantiles: tuple[float, ...]
    spread: tuple[float, ...]
    intensity_distance: float
    disagreement: float | None
    orientation: str

    def write(self, folder: Path) -> None:
        """Write it beside a model's plans."""
        write_json(folder / FILE, {"version": VERSION, **asdict(self)})


def read_profile(folder: Path, digest: str) -> Profile | None:
    """The profile of a model; None where there is none.

    Raises:
        UserError: If it is damaged or belongs to other weights.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content.pop("version") == VERSION
        sequences = {key: tuple(content[key]) for key in ("quantiles", "spread")}
        profile = Profile(**{**content, **sequences})
    except (ValueError, TypeError, KeyError, AssertionError) as e:
        raise UserError(f"{path} is damaged or of another version; make the profile anew") from e
    if profile.digest != digest:
        raise UserError(f"{path} belongs to other weights than those in use; make the profile anew")
    return profile


PERCENTILES = (1, 25, 50, 75, 99)


def intensity_quantiles(image: sitk.Image) -> NDArray[np.float64]:
    """The percentiles of a scan that a profile compares."""
    return np.percentile(sitk.GetArrayViewFromImage(image), PERCENTILES).astype(np.float64)


def distance(quantiles: Sequence[float], mean: Sequence[float], spread: Sequence[float]) -> float:
    """Root mean square of the quantiles' distances from the training images' mean, in their standard deviations."""
    units = np.maximum(np.asarray(spread), 1.0)
    return float(np.sqrt(np.mean(((np.asarray(quantiles) - mean) / units) ** 2)))


def profile_of(
    quantiles: Iterable[Sequence[float]], disagreements: Iterable[float | None], digest: str, orientation: str
) -> Profile:
    """A profile of the training images' quantiles and of the disagreement of the folds on them.

    The usual distance is that of each image from all others (leave one out).

    Raises:
        UserError: With fewer than three images.
    """
    rows = np.array(list(quantiles))
    if len(rows) < 3:
        raise UserError(f"a profile needs at least three training images, there are {len(rows)}")
    left_out = [
        distance(rows[i], np.delete(rows, i, 0).mean(0), np.delete(rows, i, 0).std(0, ddof=1)) for i in range(len(rows))
    ]
    known = [value for value in disagreements if value is not None]
    return Profile(
        digest=digest,
        cases=len(rows),
        quantiles=tuple(rows.mean(0).tolist()),
        spread=tuple(rows.std(0, ddof=1).tolist()),
        intensity_distance=float(np.quantile(left_out, QUANTILE)),
        disagreement=float(np.quantile(known, QUANTILE)) if known else None,
        orientation=orientation,
    )


def flags(numbers: Quantities, labelled: Labelled, image: sitk.Image, profile: Profile | None) -> tuple[Flag, ...]:
    """Every check that could be made, raised or not."""
    found = []
    lungs = numbers.region("lungs")
    if lungs is not None:
        litres = lungs.volume_ml / 1000
        low, high = LUNG_LITRES
        near = low if litres < (low + high) / 2 else high
        sentence = f"The lung volume is outside {low:g} to {high:g} l, what human lungs hold: part of them may be missing."
        found.append(Flag("lung_volume", litres, "l", near, not low <= litres <= high, sentence))
    if numbers.outside_percent is not None:
        sentence = "Much of the infection lies outside the lung mask: the mask or the label map is wrong."
        found.append(_above("infection_outside_lungs", numbers.outside_percent, "%", MOST_OUTSIDE, sentence))
    if labelled.disagreement is not None:
        usual = profile.disagreement if profile and profile.disagreement is not None else MOST_DISAGREEMENT
        sentence = "The folds of the model disagree on this scan more than usual."
        found.append(_above("fold_disagreement", 100 * labelled.disagreement, "%", 100 * usual, sentence))
    if profile is not None:
        value = distance(intensity_quantiles(image).tolist(), profile.quantiles, profile.spread)
        sentence = f"The intensities lie farther from the {profile.cases} training images than 95 % of these do."
        found.append(_above("intensity_distance", value, "standard deviations", profile.intensity_distance, sentence))
    return tuple(found)


def _above(key: str, value: float, unit: str, threshold: float, sentence: str) -> Flag:
    return Flag(key, float(value), unit, float(threshold), bool(value > threshold), sentence)


def urgency(flags: Iterable[Flag | dict[str, Any]]) -> float:
    """For the order in which a batch is looked at: how far the worst flag lies above its threshold, 0 without one."""
    rows = [asdict(flag) if isinstance(flag, Flag) else flag for flag in flags]
    return max((abs(row["value"] - row["threshold"]) / max(abs(row["threshold"]), 1e-9) for row in rows if row["raised"]), default=0.0)
