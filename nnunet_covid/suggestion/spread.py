"""Choosing images one after the other: much disagreement, far in looks from what is chosen, and of other patients.

Greedy k-centre (Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018),
in which an image's distance counts as much as its disagreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Labelled:
    """Images that an expert has labelled already; they count as chosen.

    Attributes:
        patients: Whose each is.
        features: (images, features).
    """

    patients: Sequence[str] = ()
    features: NDArray[np.floating] = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class Choice:
    """One image: its index, and its distance in looks to the nearest one chosen before; None where there is none."""

    index: int
    distance: float | None


def spread_out(
    scores: Sequence[float],
    patients: Sequence[str],
    features: NDArray[np.floating] | None,
    number: int,
    labelled: Labelled | None = None,
) -> list[Choice]:
    """Images in the order in which to label them: each time the largest score · distance / (1 + images of the patient).

    Args:
        scores: Of each image, not negative.
        patients: Whose each is.
        features: (images, features); without them distances are left out.
        number: How many to choose, at most as many as there are.
        labelled: Chosen before the first.

    Returns:
        As many as asked for. Distances are root mean squares over the features, in standard deviations of the images.
    """
    labelled = labelled or Labelled()
    worth, taken = np.asarray(scores, float), Counter(labelled.patients)
    nearest = np.full(len(worth), np.inf)
    looks: NDArray[np.float64] | None = None
    if features is not None:
        looks, known = _standardised(np.asarray(features, float), np.asarray(labelled.features, float))
        for row in known:
            nearest = np.minimum(nearest, _distances(looks, row))
    chosen: list[Choice] = []
    left = np.ones(len(worth), bool)
    for _ in range(number):
        distance = np.where(np.isinf(nearest), 1.0, nearest)
        value = worth * distance / [1 + taken[patient] for patient in patients]
        # among equals the farthest, then the first
        best = int(np.lexsort((-np.arange(len(worth)), distance, np.where(left, value, -1)))[-1])
        chosen.append(Choice(best, float(nearest[best]) if np.isfinite(nearest[best]) else None))
        left[best] = False
        taken[patients[best]] += 1
        if looks is not None:
            nearest = np.minimum(nearest, _distances(looks, looks[best]))
    return chosen


def _standardised(
    images: NDArray[np.float64], labelled: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both in standard deviations of the images; features that are the same in all of them are left out."""
    spread = images.std(0)
    kept = spread > 0
    known = labelled.reshape(-1, images.shape[1])
    return images[:, kept] / spread[kept], known[:, kept] / spread[kept]


def _distances(rows: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(rows - row, axis=1) / np.sqrt(max(1, rows.shape[1]))
