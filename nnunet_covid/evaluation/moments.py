"""Number, mean and centred sum of squares of a set of values, and how two sets join.

Pairwise joining (Chan, Golub and LeVeque, 1979) keeps a constant set at a variance of exactly zero, which the
S-measure's special cases depend on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """``n`` values with the given mean; ``m2`` = Σ (x − mean)²."""

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


def moments_of_counts(counts: NDArray[np.int64]) -> Moments:
    """Moments of integers 0, 1, 2, … that occur ``counts[0]``, ``counts[1]``, … times; exact."""
    return moments_of_each(counts[None])[0]


def moments_of_each(counts: NDArray[np.int64]) -> list[Moments]:
    """:func:`moments_of_counts` of every row, shape (rows, values)."""
    grey = np.arange(counts.shape[1], dtype=np.int64)
    sums = counts @ np.stack([np.ones_like(grey), grey, grey * grey], axis=1)
    # Python's integers do not overflow, so nothing is lost before the one division.
    return [
        Moments(n, total / n, (n * squares - total * total) / n) if n else NO_VALUES
        for n, total, squares in sums.tolist()
    ]
