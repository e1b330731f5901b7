"""How far a report may be trusted: flags with their thresholds, and the profile of a model that some of them need.

A profile is computed once per model by ``nnunet-covid profile`` from its training images and stands beside its plans.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import LedoitWolf

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_json
from nnunet_covid.report.document import Flag
from nnunet_covid.report.model import Observed
from nnunet_covid.report.quantify import Quantities

FILE = "nnunet_covid_profile.json"
VERSION = 1
QUANTILE = 0.95
"""A scan is far from the training images where it lies farther than 95 of 100 of them do from the others."""
LUNG_LITRES = (1.0, 9.0)
"""Lungs of adults on CT, from breathed out to breathed in; a choice of this project around published capacities."""
NO_LUNGS = "no_lungs"
FEWEST_CASES = 5
MOST_DIRECTIONS = 16
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
        disagreement: Largest usual disagreement of several predictions; None where there are none.
        feature_mean: Of the encoder's deepest features; empty without an encoder.
        feature_axes: Rows that bring features less their mean to unit variance (Ledoit-Wolf's shrunk covariance).
        feature_distance: Largest usual Mahalanobis distance.
        orientation: Storage order of the training images.
    """

    digest: str
    cases: int
    quantiles: tuple[float, ...]
    spread: tuple[float, ...]
    intensity_distance: float
    disagreement: float | None
    feature_mean: tuple[float, ...]
    feature_axes: tuple[tuple[float, ...], ...]
    feature_distance: float
    orientation: str

    def distance_of_features(self, features: Sequence[float]) -> float:
        """Mahalanobis distance to the training images."""
        return float(np.linalg.norm(np.asarray(self.feature_axes) @ (np.asarray(features) - self.feature_mean)))

    def write(self, folder: Path) -> Path:
        """Write it beside a model's plans; returns the file."""
        write_json(folder / FILE, {"version": VERSION, **asdict(self)})
        return folder / FILE


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
        sequences = {key: tuple(content[key]) for key in ("quantiles", "spread", "feature_mean", "feature_axes")}
        profile = Profile(**{**content, **sequences})
    except (ValueError, TypeError, KeyError, AssertionError) as e:
        raise UserError(f"{path} is damaged or of another version; make the profile anew") from e
    if profile.digest != digest:
        raise UserError(
            f"{path} belongs to other weights, folds, mirroring or classes than those in use; "
            "make the profile anew with these"
        )
    return profile


def distance(quantiles: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> float:
    """Root mean square of the quantiles' distances from the training images' mean, in their standard deviations."""
    units = np.maximum(np.asarray(spread), 1.0)
    return float(np.sqrt(np.mean(((np.asarray(quantiles) - mean) / units) ** 2)))


def require_enough(images: int) -> None:
    """Refuse to make a profile of too few images.

    Raises:
        UserError: If they are too few.
    """
    if images < FEWEST_CASES:
        raise UserError(f"a profile needs at least {FEWEST_CASES} training images, there are {images}")


def profile_of(observed: Sequence[Observed], digest: str, orientation: str) -> Profile:
    """A profile of what was observed of the training images.

    Usual distances are those of each image from all others (leave one out).

    Raises:
        UserError: With fewer than five images, or of images without any difference.
    """
    require_enough(len(observed))
    rows = np.array([one.intensities for one in observed])
    intensity = [distance(rows[i], *_moments(np.delete(rows, i, 0))) for i in range(len(rows))]
    known = [one.disagreement for one in observed if one.disagreement is not None]
    features = [one.features for one in observed if one.features is not None]
    try:
        mean, axes, usual = _feature_space(np.array(features)) if len(features) == len(observed) else ((), (), 0.0)
    except np.linalg.LinAlgError as e:
        raise UserError("the training images look all alike to the model: copies of one image have no profile") from e
    centre, spread = _moments(rows)
    return Profile(
        digest=digest,
        cases=len(rows),
        quantiles=tuple(centre.tolist()),
        spread=tuple(spread.tolist()),
        intensity_distance=float(np.quantile(intensity, QUANTILE)),
        disagreement=float(np.quantile(known, QUANTILE)) if known else None,
        feature_mean=tuple(mean),
        feature_axes=tuple(tuple(row) for row in axes),
        feature_distance=usual,
        orientation=orientation,
    )


def _moments(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rows.mean(0), rows.std(0, ddof=1)


def _feature_space(rows: NDArray[np.float64]) -> tuple[list[float], list[list[float]], float]:
    """Mean, whitening rows and usual distance; of at most as many directions as there are images."""

    def fitted(some: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = some.mean(0)
        _, _, directions = np.linalg.svd(some - mean, full_matrices=False)
        directions = directions[: min(len(some) - 1, MOST_DIRECTIONS)]
        covariance = LedoitWolf().fit((some - mean) @ directions.T).covariance_
        return mean, np.linalg.inv(np.linalg.cholesky(covariance)) @ directions

    distances = []
    for i in range(len(rows)):
        mean, axes = fitted(np.delete(rows, i, 0))
        distances.append(float(np.linalg.norm(axes @ (rows[i] - mean))))
    mean, axes = fitted(rows)
    return mean.tolist(), axes.tolist(), float(np.quantile(distances, QUANTILE))


def flags(numbers: Quantities, observed: Observed, profile: Profile | None) -> tuple[Flag, ...]:
    """Every check that could be made, raised or not."""
    found = []
    lungs = numbers.region("lungs")
    if lungs is None:
        sentence = "No lungs were found: shares, zones and severity are not available."
        found.append(Flag(NO_LUNGS, 0.0, "l", LUNG_LITRES[0], True, sentence))
    else:
        litres = lungs.volume_ml / 1000
        low, high = LUNG_LITRES
        near = low if litres < (low + high) / 2 else high
        sentence = (
            f"The lung volume is outside {low:g} to {high:g} l, what human lungs hold: part of them may be missing."
        )
        found.append(Flag("lung_volume", litres, "l", near, not low <= litres <= high, sentence))
    if numbers.outside_percent is not None:
        sentence = "Much of the infection lies outside the lung mask: the mask or the label map is wrong."
        found.append(_above("infection_outside_lungs", numbers.outside_percent, "%", MOST_OUTSIDE, sentence))
    if observed.disagreement is not None:
        usual, origin = MOST_DISAGREEMENT, "a choice, as no training images tell"
        if profile is not None and profile.disagreement is not None:
            usual, origin = profile.disagreement, f"95 % of the {profile.cases} training images stay below"
        sentence = f"The model's predictions (folds, or with and without mirroring) disagree on this scan: {origin}."
        found.append(_above("disagreement", 100 * observed.disagreement, "%", 100 * usual, sentence))
    if profile is not None:
        value = distance(observed.intensities, profile.quantiles, profile.spread)
        sentence = f"The intensities lie farther from the {profile.cases} training images than 95 % of these do."
        found.append(_above("intensity_distance", value, "standard deviations", profile.intensity_distance, sentence))
    if profile is not None and profile.feature_axes and observed.features is not None:
        value = profile.distance_of_features(observed.features)
        sentence = f"The encoder's features lie farther from the {profile.cases} training images than 95 % of these do."
        found.append(_above("feature_distance", value, "Mahalanobis", profile.feature_distance, sentence))
    return tuple(found)


def _above(key: str, value: float, unit: str, threshold: float, sentence: str) -> Flag:
    return Flag(key, float(value), unit, float(threshold), bool(value > threshold), sentence)


def urgency(flags: Iterable[Mapping[str, Any]]) -> float:
    """For the order in which a batch is looked at: how far the worst flag lies above its threshold, 0 without one.

    Infinity without lungs: nothing else in that report can be relied on.
    """
    raised = [row for row in flags if row["raised"]]
    if any(row["key"] == NO_LUNGS for row in raised):
        return math.inf
    return max((abs(row["value"] - row["threshold"]) / max(abs(row["threshold"]), 1e-9) for row in raised), default=0.0)
