"""Statistics of two methods measured on the same cases. Pure functions of two arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
RESAMPLES_AT_ONCE = 500  # bounds the memory of the bootstrap: that many times the number of cases


@dataclass(frozen=True)
class PairedStatistics:
    """Method A against method B; differences are A − B.

    ``n`` cases have a value for both. ``interval`` is the bootstrap interval of the mean difference, ``cohen_dz`` the
    standardised mean difference, ``rank_biserial`` the matched-pairs rank-biserial correlation in [−1, 1]. ``wins``,
    ``ties`` and ``losses`` count the cases in which A is the larger, equal, the smaller. NaN where n is too small.
    """

    n: int
    mean_a: float
    mean_b: float
    mean_difference: float
    interval: tuple[float, float]
    t_test_p: float
    wilcoxon_p: float
    cohen_dz: float
    rank_biserial: float
    wins: int
    ties: int
    losses: int


def paired_statistics(a: Values, b: Values, *, seed: int = 0) -> PairedStatistics:
    """Compare two methods, given one value per case, in the same order; NaN drops the case for both.

    Args:
        a: values of method A, shape (cases,).
        b: values of method B, shape (cases,).
        seed: of the bootstrap.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 1:
        msg = f"expected two lists of the same cases, got shapes {a.shape} and {b.shape}"
        raise ValueError(msg)
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    difference = a - b
    n = len(difference)
    nan = float("nan")
    return PairedStatistics(
        n=n,
        mean_a=float(a.mean()) if n else nan,
        mean_b=float(b.mean()) if n else nan,
        mean_difference=float(difference.mean()) if n else nan,
        interval=bootstrap_interval(difference, seed=seed),
        t_test_p=t_test_p(difference),
        wilcoxon_p=wilcoxon_p(difference),
        cohen_dz=cohen_dz(difference),
        rank_biserial=rank_biserial(difference),
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
    )


def bootstrap_interval(difference: Values, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, over resamples of the cases with replacement (Efron, 1979).

    ``scipy.stats.bootstrap`` draws the same resamples, but interpolates their percentiles with other rounding: its
    last digit would change the tables on disk, and it calls its seed by another name before SciPy 1.15.
    """
    n = len(difference)
    if n < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, RESAMPLES - start)
        means[start : start + size] = difference[rng.integers(0, n, (size, n))].mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def t_test_p(difference: Values) -> float:
    """Two-sided p of the paired t-test: t = d̄ / (s_d/√n), n − 1 degrees of freedom; 1 if no case differs."""
    if len(difference) < 2:
        return float("nan")
    if not np.any(difference):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all differences alike: t is infinite, p is 0
        return float(stats.ttest_1samp(difference, 0.0).pvalue)


def wilcoxon_p(difference: Values) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; cases without a difference are dropped; 1 if no case differs."""
    nonzero = difference[difference != 0]
    if len(difference) < 2:
        return float("nan")
    if len(nonzero) == 0:
        return 1.0
    return float(stats.wilcoxon(nonzero).pvalue)


def cohen_dz(difference: Values) -> float:
    """Standardised mean difference d_z = d̄ / s_d (Cohen, 1988, §2.3.5); 0 if no case differs."""
    if len(difference) < 2:
        return float("nan")
    if not np.any(difference):
        return 0.0
    spread = float(difference.std(ddof=1))
    return float(difference.mean()) / spread if spread else float(np.sign(difference[0])) * float("inf")


def rank_biserial(difference: Values) -> float:
    """(R₊ − R₋) / (R₊ + R₋), R± the rank sums of |d| of positive and negative differences (Kerby, 2014)."""
    nonzero = difference[difference != 0]
    if len(nonzero) == 0:
        return 0.0 if len(difference) else float("nan")
    ranks = stats.rankdata(np.abs(nonzero))
    return float(ranks @ np.sign(nonzero)) / float(ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for testing them all (Holm, 1979): p₍ᵢ₎ ↦ max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎).

    NaN stays NaN and is not counted.
    """
    adjusted = [float("nan")] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted
