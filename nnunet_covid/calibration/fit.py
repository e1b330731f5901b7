r"""Temperature and threshold of each class: what they do to logits, and how they are fitted.

nnU-Net reads its maps in one way: argmax of a softmax, or a sigmoid per region above 0.5. Another operating point is
therefore written as other logits. With the log-odds of class k

.. math::
    d_k = z_k - z_0 = \log(p_k / p_0) \;\text{(softmax)}, \qquad d_k = z_k = \log\frac{p_k}{1 - p_k} \;\text{(sigmoid)},

a threshold :math:`t_k` and a temperature :math:`T_k` (Guo et al., "On Calibration of Modern Neural Networks", 2017) the
calibrated logits are

.. math:: z'_k = (d_k - \log\tfrac{t_k}{1 - t_k}) / T_k, \qquad z'_0 = 0 \;\text{(softmax)},

that is scale :math:`1 / T_k` and shift :math:`-\operatorname{logit}(t_k) / T_k`. Then :math:`\sigma(z'_k) > 1/2`
exactly where :math:`\sigma(d_k) > t_k`, whatever the temperature; with one foreground class that is :math:`p > t`. With
several classes of a softmax, :math:`t_k` is read from class k against background, :math:`p_k / (p_k + p_0)`, and among
the classes above their thresholds the one with the largest excess wins; they share one temperature, so that no
temperature changes a label. A softmax does not change when a constant is added to all its logits, and neither do its
log-odds: they are known from saved probabilities, which a scale of each logit by itself would not be.

Between network and label map nnU-Net only takes means of logits with weights that sum to one: over mirrored copies,
tiles, folds and neighbouring voxels. Scale and shift commute with these, so that what is fitted on the saved
probabilities holds for the network's logits (up to the 16-bit floats in which nnU-Net adds up tiles).

Both are fitted on histograms: a case is reduced to counts of voxels by log-odds, so that fitting again without one fold
costs nothing. Bins end at multiples of :data:`BIN_WIDTH`; a threshold is always the end of a bin, and the counts above
it are exact.

Not here: files, folds and figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import minimize_scalar

from nnunet_covid.evaluation.labels import LabelScheme

LARGEST_LOG_ODDS = 20.0
"""Where the histograms end, and where a sigmoid in 32-bit floats has long been 1."""
BIN_WIDTH = 0.02
BINS = round(2 * LARGEST_LOG_ODDS / BIN_WIDTH)
EDGES = (np.arange(BINS + 1) - BINS // 2) * BIN_WIDTH
"""Bin i holds log-odds in (EDGES[i], EDGES[i + 1]], the first and the last also what lies beyond."""
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2
THRESHOLDS = (0.01, 0.99)
"""Range of the fitted thresholds."""
TEMPERATURES = (0.25, 10.0)
"""Range of the fitted temperatures; a smaller one could overflow nnU-Net's 16-bit sums."""
RELIABILITY_BINS = 15
"""Number of bins of probability (Guo et al., 2017, §2)."""


def logit(probability: float) -> float:
    """log(p / (1 − p))."""
    return float(np.log(probability) - np.log1p(-probability))


def log_odds(probabilities: NDArray[np.floating], *, softmax: bool) -> NDArray[np.float32]:
    """Log-odds of every foreground class, (classes, *spatial), from probabilities (heads, *spatial).

    Finite, and as far apart as the probabilities: classes of a softmax stay in their order where none is background. Of
    a sigmoid :data:`LARGEST_LOG_ODDS` at most. A softmax has the background as its first head, a sigmoid has none.
    """
    tiny = np.finfo(np.float32).tiny
    p = np.asarray(probabilities, np.float32)
    positive = np.log(np.maximum(p[1:] if softmax else p, tiny))
    negative = np.log(np.maximum(p[:1], tiny) if softmax else np.maximum(1 - p, math.exp(-LARGEST_LOG_ODDS)))
    return positive - negative


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of every foreground class or region, in the order of the network's heads.

    Attributes:
        softmax: Whether the heads are a softmax with the background first, or a sigmoid each.
        temperatures: T, above 0; 1 changes nothing.
        thresholds: t, between 0 and 1; 0.5 changes nothing.
    """

    softmax: bool
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]

    @classmethod
    def identity(cls, classes: int, *, softmax: bool) -> Calibration:
        """What nnU-Net does by itself."""
        return cls(softmax, (1.0,) * classes, (0.5,) * classes)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Calibration:
        """The inverse of :meth:`to_json`."""
        return cls(bool(content["softmax"]), tuple(content["temperatures"]), tuple(content["thresholds"]))

    def to_json(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        thresholds, temperatures = list(self.thresholds), list(self.temperatures)
        return {"softmax": self.softmax, "temperatures": temperatures, "thresholds": thresholds}

    @property
    def at_a_limit(self) -> bool:
        """Whether a temperature would have gone on: the probabilities say hardly anything, or say it far too softly."""
        return any(np.isclose(t, TEMPERATURES, rtol=1e-3).any() for t in self.temperatures)

    @property
    def scale(self) -> tuple[float, ...]:
        """Factor of the log-odds of every class."""
        return tuple(1 / t for t in self.temperatures)

    @property
    def shift(self) -> tuple[float, ...]:
        """What is added to the scaled log-odds of every class."""
        return tuple(-logit(t) * s for t, s in zip(self.thresholds, self.scale, strict=True))

    def of_log_odds(self, odds: NDArray[np.floating], position: int) -> NDArray[np.floating]:
        """Calibrated log-odds of the class at a position among the foreground classes."""
        return odds * self.scale[position] + self.shift[position]

    def of_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated logits (B, heads, *spatial) of a network's logits of the same shape, in 32-bit floats."""
        odds = logits[:, 1:] - logits[:, :1] if self.softmax else logits
        scale, shift = (
            torch.tensor(values, device=logits.device).view(1, -1, *(1,) * (logits.ndim - 2))
            for values in (self.scale, self.shift)
        )
        calibrated = odds * scale + shift
        return torch.cat((torch.zeros_like(calibrated[:, :1]), calibrated), dim=1) if self.softmax else calibrated


def calibrated_probabilities(probabilities: NDArray[np.floating], calibration: Calibration) -> NDArray[np.floating]:
    """What nnU-Net saves, (heads, *spatial), with the calibration in the checkpoint.

    Voxels outside the bounding box that nnU-Net crops to would stay background there and become nearly so here.
    """
    odds = log_odds(probabilities, softmax=calibration.softmax)
    calibrated = np.stack([calibration.of_log_odds(each, k) for k, each in enumerate(odds)])
    if not calibration.softmax:
        return special.expit(calibrated)
    return special.softmax(np.concatenate([np.zeros_like(calibrated[:1]), calibrated]), axis=0)


@dataclass(frozen=True)
class CaseCounts:
    """Histograms over the log-odds of one case or several, a row per foreground class, (classes, BINS).

    Attributes:
        inside: Voxels of the class.
        outside: Voxels that the class is told from: background for a softmax, all others for a sigmoid.
        hits: Voxels of the class at which no other class of a softmax is stronger: what any threshold can find.
        false_alarms: Voxels not of the class at which it is the strongest.
    """

    inside: NDArray[np.int64]
    outside: NDArray[np.int64]
    hits: NDArray[np.int64]
    false_alarms: NDArray[np.int64]

    @classmethod
    def of_case(
        cls, probabilities: NDArray[np.floating], reference: NDArray[np.integer], scheme: LabelScheme
    ) -> CaseCounts:
        """Count one case.

        Args:
            probabilities: (heads, *spatial), as nnU-Net saves them.
            reference: Label map (*spatial).
            scheme: The classes; voxels with its ignore label do not count.
        """
        softmax = not scheme.has_regions
        odds = log_odds(probabilities, softmax=softmax)
        counted = np.ones(reference.shape, bool) if scheme.ignore is None else reference != scheme.ignore
        strongest = odds.argmax(axis=0) if softmax else None
        bins = np.clip(np.ceil(odds / BIN_WIDTH).astype(np.int64) + BINS // 2 - 1, 0, BINS - 1)
        rows: list[list[NDArray[np.int64]]] = [[], [], [], []]
        for k, each in enumerate(classes_by_head(scheme)):
            mask = each.mask(reference)
            candidates = counted if strongest is None else counted & (strongest == k)
            others = counted & (reference == 0 if softmax else ~mask)
            for row, where in zip(rows, (counted & mask, others, candidates & mask, candidates & ~mask), strict=True):
                row.append(np.bincount(bins[k][where], minlength=BINS))
        return cls(*(np.stack(row) for row in rows))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Voxels of every class, (classes,)."""
        return self.inside.sum(axis=1)


def classes_by_head(scheme: LabelScheme) -> list:
    """The foreground classes in the order of the network's heads."""
    return sorted(scheme.classes, key=lambda each: each.channel)


def dice_curves(cases: Sequence[CaseCounts]) -> NDArray[np.float64]:
    """Mean Dice over the cases, (classes, BINS), of the voxels above EDGES[i]; 1 where both masks are empty."""
    curves = np.zeros((len(cases[0].inside), BINS))
    for case in cases:
        found, wrong = (np.cumsum(h[:, ::-1], axis=1)[:, ::-1] for h in (case.hits, case.false_alarms))
        total = found + wrong + case.sizes[:, None]
        curves += np.divide(2 * found, total, out=np.ones(total.shape), where=total > 0)
    return curves / len(cases)


def fit_thresholds(cases: Sequence[CaseCounts]) -> tuple[float, ...]:
    """For every class the threshold with the largest mean Dice; of several the nearest to 0.5.

    A class that no case shows keeps 0.5.
    """
    low, high = (logit(t) for t in THRESHOLDS)
    allowed = (EDGES[:-1] >= low) & (EDGES[:-1] <= high)
    edges = EDGES[:-1][allowed]
    present = np.sum([case.sizes for case in cases], axis=0) > 0
    thresholds = []
    for curve, seen in zip(dice_curves(cases)[:, allowed], present, strict=True):
        best = edges[curve >= curve.max() - 1e-9]
        thresholds.append(float(special.expit(best[np.abs(best).argmin()])) if seen else 0.5)
    return tuple(thresholds)


def fit_temperatures(total: CaseCounts, thresholds: Sequence[float], *, softmax: bool) -> tuple[float, ...]:
    """Temperatures of the largest likelihood of the reference, given the thresholds.

    A sigmoid has one of its own per class. The classes of a softmax share one: each is compared with the background
    by itself (Begg and Gray, Biometrika 1984), and the log-likelihoods are added.
    """
    distances = [CENTRES - logit(t) for t in thresholds]
    rows = list(zip(distances, total.inside, total.outside, strict=True))
    if softmax:
        return (_temperature(rows),) * len(rows)
    return tuple(_temperature([row]) for row in rows)


def _temperature(rows: Sequence[tuple[NDArray, NDArray, NDArray]]) -> float:
    """One temperature for rows of distance to the threshold and numbers of voxels inside and outside there."""
    if not all(any(counts.any() for counts in side) for side in list(zip(*rows, strict=True))[1:]):
        return 1.0

    def negative_log_likelihood(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return sum(
            float(inside @ np.logaddexp(0, -scale * d) + outside @ np.logaddexp(0, scale * d))
            for d, inside, outside in rows
        )

    bounds = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(-found.x))


def fit(cases: Sequence[CaseCounts], *, softmax: bool, threshold: bool = True) -> Calibration:
    """Thresholds for the largest mean Dice, then temperatures for the largest likelihood.

    Args:
        cases: At least one.
        threshold: ``False`` keeps 0.5: no label changes.
    """
    total = summed(cases)
    thresholds = fit_thresholds(cases) if threshold else (0.5,) * len(total.sizes)
    return Calibration(softmax, fit_temperatures(total, thresholds, softmax=softmax), thresholds)


def summed(cases: Sequence[CaseCounts]) -> CaseCounts:
    """The counts of several cases together."""
    return CaseCounts(*(np.sum([getattr(case, f.name) for case in cases], axis=0) for f in fields(CaseCounts)))


@dataclass(frozen=True)
class Reliability:
    """How often a class is there, by the probability that says so; (RELIABILITY_BINS,) each.

    Attributes:
        voxels: Number in every bin of probability.
        probability: Their sum of probabilities.
        inside: How many of them are of the class.
        absolute_error: Σ|p − g| over all voxels, g being 1 inside and 0 outside.
    """

    voxels: NDArray[np.float64]
    probability: NDArray[np.float64]
    inside: NDArray[np.float64]
    absolute_error: float

    @classmethod
    def of_counts(cls, counts: CaseCounts, position: int, calibration: Calibration) -> Reliability:
        """Of the class at a position, after calibration."""
        p = special.expit(calibration.of_log_odds(CENTRES, position))
        inside, outside = counts.inside[position], counts.outside[position]

        def binned(weights: NDArray) -> NDArray[np.float64]:
            return np.histogram(p, RELIABILITY_BINS, (0, 1), weights=weights)[0].astype(np.float64)

        error = float(inside @ (1 - p) + outside @ p)
        return cls(binned(inside + outside), binned((inside + outside) * p), binned(inside), error)

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def expected_calibration_error(self) -> float:
        """Σ over bins of |voxels of the class − sum of probabilities| / all voxels (Naeini et al., AAAI 2015)."""
        return float(np.abs(self.inside - self.probability).sum() / max(self.voxels.sum(), 1))

    @property
    def mae(self) -> float:
        """Mean absolute error of the map."""
        return self.absolute_error / max(float(self.voxels.sum()), 1)
