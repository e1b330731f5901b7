"""Metrics of a probability map against a reference: S-measure, E-measure, mean absolute error.

Pure functions of one slice. An 8-bit map goes through a joint histogram of grey values and reference: counting 256 grey
values once per quadrant and class replaces 256 binarised images. The Inf-Net toolbox's versions of these metrics
are in ``toolbox``, built from the same histogram. (pysodmetrics has them too, three to four times slower and without an
ignore label.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.5  # of the S-measure, §4.1 of its paper
EPSILON = float(np.spacing(1))  # MATLAB's eps, which the authors' code adds to denominators
GREY_VALUES = 256
BLOCK_PIXELS = 1 << 16  # widened to 64 bits, a block of this size stays below half a megabyte

Quadrant = tuple[slice, slice]
Curve = NDArray[np.float64]


def map_mae(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> float:
    """MAE = mean |p − g| over all voxels, g the reference as 0 and 1.

    Args:
        probability: map with values in [0, 1], any number of axes.
        reference: mask of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if probability.shape != reference.shape:
        msg = f"map {probability.shape} and reference {reference.shape} differ in shape"
        raise ValueError(msg)
    return float(np.abs(probability - reference).mean(dtype=np.float64)) if reference.size else 0.0


def s_measure(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> float:
    """The structure measure of Fan et al., ICCV 2017: S = max(0, α·S_object + (1 − α)·S_region), α = 0.5.

    Args:
        probability: map with values in [0, 1], shape (rows, columns).
        reference: mask of the same shape.

    Raises:
        ValueError: if the arrays are not 2D or differ in shape.
    """
    check_slice(probability, reference)
    cells = []
    for quadrant in quadrants(reference):
        values, foreground = probability[quadrant], reference[quadrant]
        cells.append((moments_of_values(values[~foreground]), moments_of_values(values[foreground])))
    return s_measure_of_moments(cells)


def s_measure_of_moments(cells: Sequence[tuple[Moments, Moments]]) -> float:
    """S-measure from the moments of the map on background and foreground of each of the four quadrants.

    Special cases of the paper: a reference without foreground gives 1 − mean(map), one without background
    mean(map).
    """
    background, foreground = NO_VALUES, NO_VALUES
    for cell_background, cell_foreground in cells:
        background, foreground = background.joined(cell_background), foreground.joined(cell_foreground)
    if not foreground.n:
        return 1.0 - background.mean
    if not background.n:
        return foreground.mean
    share = foreground.n / (foreground.n + background.n)
    object_score = share * _object_similarity(foreground)
    object_score += (1 - share) * _object_similarity(background.mirrored())
    total = foreground.n + background.n
    region_score = sum((b.n + f.n) / total * _structural_similarity(b, f) for b, f in cells)
    return max(0.0, ALPHA * object_score + (1 - ALPHA) * region_score)


def _object_similarity(values: Moments) -> float:
    """2·x̄ / (x̄² + 1 + σ), eq. (4) and (5) with the weight of the spread that the authors' code uses."""
    return 2 * values.mean / (values.mean**2 + 1 + values.standard_deviation() + EPSILON)


def _structural_similarity(background: Moments, foreground: Moments) -> float:
    """4·x̄·ȳ·σ_xy / ((x̄² + ȳ²)·(σ_x² + σ_y²)) of one quadrant, x the map and y the reference.

    1 where numerator and denominator vanish, 0 where only the numerator does.
    """
    both = background.joined(foreground)
    if not both.n:
        return 0.0  # an empty quadrant has weight 0
    degrees = both.n - 1 + EPSILON
    mean_y = foreground.n / both.n
    mixed = background.n * foreground.n / both.n
    variance_x = both.m2 / degrees
    variance_y = mixed / degrees
    covariance = mixed * (foreground.mean - background.mean) / degrees
    numerator = 4 * both.mean * mean_y * covariance
    denominator = (both.mean**2 + mean_y**2) * (variance_x + variance_y)
    if numerator != 0:
        return numerator / (denominator + EPSILON)
    return 1.0 if denominator == 0 else 0.0


def mean_e_measure(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> float:
    """The enhanced-alignment measure of Fan et al., IJCAI 2018: mean of :func:`e_measure_curve` over 256 thresholds.

    Args:
        probability: map with values in [0, 1], shape (rows, columns).
        reference: mask of the same shape.

    Raises:
        ValueError: if the arrays are not 2D or differ in shape.
    """
    check_slice(probability, reference)
    return float(e_measure_curve(sweep_of_map(probability, reference)).mean())


def e_measure_curve(sweep: ThresholdSweep, *, less_one: bool = False) -> Curve:
    """E-measure of the binarised map at each threshold, shape (256,).

    ``E = 1/(w·h) · Σ (1 + ξ)²/4`` with the alignment ``ξ = 2·a·b / (a² + b²)``, where a and b are prediction
    and reference less their means (eq. 3 to 5). A reference without foreground scores the share of background
    predicted, one without background the share of foreground predicted.

    ξ takes one value for each of TP, FP, FN and TN, so that four counts stand for all pixels. With ``less_one`` the sum
    is divided by w·h − 1, as the authors' toolbox does.
    """
    foreground, background = sweep.foreground, sweep.background
    size = foreground + background
    predicted = sweep.tp + sweep.fp
    if foreground == 0:
        total = (size - predicted).astype(np.float64)
    elif background == 0:
        total = predicted.astype(np.float64)
    else:
        a_inside, a_outside = 1 - predicted / size, -predicted / size
        b_inside, b_outside = 1 - foreground / size, -foreground / size
        fn, tn = foreground - sweep.tp, background - sweep.fp
        total = sweep.tp * _enhanced(a_inside, b_inside) + sweep.fp * _enhanced(a_inside, b_outside)
        total += fn * _enhanced(a_outside, b_inside) + tn * _enhanced(a_outside, b_outside)
    return total / max(size - 1 if less_one else size, 1)


def _enhanced(a: Curve, b: float) -> Curve:
    """(1 + ξ)²/4 with ξ = 2·a·b / (a² + b²)."""
    alignment = 2 * a * b / (a * a + b * b + EPSILON)
    return (1 + alignment) ** 2 / 4


@dataclass(frozen=True)
class ThresholdSweep:
    """Counts at the thresholds 1, 254/255, …, 1/255, 0, where prediction = map ≥ threshold.

    ``tp`` and ``fp`` have shape (256,) and rise from the strictest threshold to 0, where everything is
    predicted.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]

    @property
    def foreground(self) -> int:
        """Reference pixels."""
        return int(self.tp[-1])

    @property
    def background(self) -> int:
        """Pixels outside the reference."""
        return int(self.fp[-1])

    def dice(self) -> Curve:
        """2·TP / (2·TP + FP + FN) at each threshold; 0 where no true positive is left."""
        return _share(2 * self.tp, self.tp + self.fp + self.foreground)

    def sensitivity(self) -> Curve:
        """TP / (TP + FN) at each threshold; 0 where no true positive is left."""
        return _share(self.tp, np.full_like(self.tp, self.foreground))

    def precision(self) -> Curve:
        """TP / (TP + FP) at each threshold; 0 where no true positive is left."""
        return _share(self.tp, self.tp + self.fp)

    def specificity(self) -> Curve:
        """TN / (TN + FP) at each threshold, as it is defined."""
        return _share(self.background - self.fp, np.full_like(self.fp, self.background))


def threshold_sweep(quantised: NDArray[np.int64]) -> ThresholdSweep:
    """Sweep from ``quantised[c, k]``: pixels of class c whose value lies in [k/255, (k + 1)/255)."""
    falling = np.cumsum(quantised[:, ::-1], axis=1)
    return ThresholdSweep(tp=falling[1], fp=falling[0])


def sweep_of_map(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> ThresholdSweep:
    """Sweep of a map with values in [0, 1]; both arrays of one shape, any number of axes."""
    # A hair above k/255 · 255 so that k/255 itself, as stored in a float, stays at its own threshold.
    step = (probability.astype(np.float64) * (GREY_VALUES - 1) + 1e-9).astype(np.uint16)
    joint = np.bincount((step + GREY_VALUES * reference.astype(np.uint16)).ravel(), minlength=2 * GREY_VALUES)
    return threshold_sweep(joint.reshape(2, GREY_VALUES))


def _share(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> Curve:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


@dataclass(frozen=True)
class Moments:
    """``n`` values with the given mean; ``m2`` = Σ (x − mean)².

    Pairwise joining (Chan, Golub and LeVeque, 1979) keeps a constant set at a variance of exactly zero, which the
    S-measure's special cases depend on.
    """

    n: int
    mean: float
    m2: float

    def joined(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        shift = other.mean - self.mean
        return Moments(
            n=n,
            mean=self.mean + shift * other.n / n,
            m2=self.m2 + other.m2 + shift * shift * self.n * other.n / n,
        )

    def rescaled(self, *, offset: float, scale: float) -> Moments:
        """The moments of (x − offset) / scale."""
        return Moments(self.n, (self.mean - offset) / scale, self.m2 / scale**2)

    def mirrored(self) -> Moments:
        """The moments of 1 − x."""
        return Moments(self.n, 1.0 - self.mean, self.m2)

    def standard_deviation(self) -> float:
        """Of the sample, √(m2 / (n − 1)); 0 for a single value."""
        return float(np.sqrt(self.m2 / (self.n - 1))) if self.n > 1 else 0.0


NO_VALUES = Moments(0, 0.0, 0.0)


def moments_of_values(values: NDArray[np.floating]) -> Moments:
    """Moments of an array of any shape, in double precision; exact for equal values."""
    flat = values.ravel()
    n = flat.size
    if n == 0:
        return NO_VALUES
    origin = float(flat[0])
    shifted = flat.astype(np.float64)
    shifted -= origin
    total = float(shifted.sum())
    squares = float(np.dot(shifted, shifted))
    return Moments(n, origin + total / n, max(squares - total * total / n, 0.0))


def moments_of_each(counts: NDArray[np.int64]) -> list[Moments]:
    """Per row, moments of integers 0, 1, 2, … that occur ``counts[row, 0]``, ``counts[row, 1]``, … times; exact."""
    grey = np.arange(counts.shape[1], dtype=np.int64)
    sums = counts @ np.stack([np.ones_like(grey), grey, grey * grey], axis=1)
    # Python's integers do not overflow, so nothing is lost before the one division.
    return [
        Moments(n, total / n, (n * squares - total * total) / n) if n else NO_VALUES
        for n, total, squares in sums.tolist()
    ]


def centroid_split(reference: NDArray[np.bool_]) -> tuple[int, int]:
    """Number of rows and of columns that lie before the cut, for a reference of shape (rows, columns).

    The cut runs behind the rounded centroid: the row and column of the centroid belong to the upper left.
    Without foreground the centroid is the middle of the image. Rounding is to the even number, as in NumPy.
    """
    # Sums of bytes go through vector instructions, counts of bools along an axis do not.
    rows, columns = (np.add.reduce(reference.view(np.uint8), axis=axis, dtype=np.uint32) for axis in (1, 0))
    size = int(rows.sum())
    if size == 0:
        height, width = reference.shape
        return round(height / 2) + 1, round(width / 2) + 1
    row = int(rows @ np.arange(len(rows))) / size
    column = int(columns @ np.arange(len(columns))) / size
    return round(row) + 1, round(column) + 1


def quadrants(reference: NDArray[np.bool_]) -> tuple[Quadrant, Quadrant, Quadrant, Quadrant]:
    """The image split at the centroid of its reference: upper left, upper right, lower left, lower right.

    Some may be empty.
    """
    row, column = centroid_split(reference)
    upper, lower = slice(0, row), slice(row, None)
    left, right = slice(0, column), slice(column, None)
    return (upper, left), (upper, right), (lower, left), (lower, right)


@dataclass(frozen=True)
class GreyHistogram:
    """``counts[q, c, v]``: pixels of grey v in quadrant q on background (c = 0) or foreground (c = 1)."""

    counts: NDArray[np.int64]

    @cached_property
    def by_class(self) -> NDArray[np.int64]:
        """Counts of the whole slice, shape (2, 256)."""
        return self.counts.sum(axis=0)

    def grey_range(self) -> tuple[int, int]:
        """Smallest and largest grey value that occurs."""
        present = np.flatnonzero(self.by_class.any(axis=0))
        return int(present[0]), int(present[-1])

    def moments(self, *, offset: float, scale: float) -> list[tuple[Moments, Moments]]:
        """Per quadrant, the moments of (v − offset) / scale on background and on foreground."""
        rescaled = [m.rescaled(offset=offset, scale=scale) for m in self._grey_moments]
        return list(zip(rescaled[::2], rescaled[1::2], strict=True))

    @cached_property
    def _grey_moments(self) -> list[Moments]:
        """Of the grey values themselves: background and foreground of each quadrant in turn."""
        return moments_of_each(self.counts.reshape(8, GREY_VALUES))


def grey_histogram(grey: NDArray[np.uint8], reference: NDArray[np.bool_]) -> GreyHistogram:
    """Histogram of a slice, both arrays of shape (rows, columns).

    Raises:
        ValueError: if the arrays are not 2D, differ in shape or hold no pixel.
    """
    check_slice(grey, reference)
    # Bit 8 carries the class, so that one count serves both.
    joint = reference.astype(np.uint16)
    joint <<= 8
    joint |= grey
    counts = [_counts(joint[quadrant]) for quadrant in quadrants(reference)]
    return GreyHistogram(np.stack(counts).reshape(4, 2, GREY_VALUES))


def _counts(joint: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How often each value below 512 occurs, counted in blocks: NumPy widens to 64 bits what it counts."""
    counts = np.zeros(2 * GREY_VALUES, dtype=np.int64)
    rows = max(1, BLOCK_PIXELS // max(1, joint.shape[1]))
    for start in range(0, len(joint), rows):
        counts += np.bincount(joint[start : start + rows].ravel(), minlength=2 * GREY_VALUES)
    return counts


def check_slice(map_slice: NDArray[np.generic], reference: NDArray[np.bool_]) -> None:
    """Raise ValueError unless both are 2D, of equal shape, and hold a pixel."""
    if map_slice.ndim != 2 or map_slice.shape != reference.shape or map_slice.size == 0:
        msg = f"expected two slices of one shape, got map {map_slice.shape} and reference {reference.shape}"
        raise ValueError(msg)
