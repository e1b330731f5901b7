"""Random fields: smooth ones that can be evaluated anywhere in space, and correlated image noise.

A field built from plane waves has the same value at a point whichever slice asks for it, so neighbouring slices
of one chest belong together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SmoothField:
    """A Gaussian random field of mean 0 and variance 1: a sum of plane waves with random directions and phases.

    Attributes:
        waves: Wave vectors, (n, 3), radians per mm.
        phases: (n,), radians.
    """

    waves: Array
    phases: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, scale: float, waves: int = 36) -> SmoothField:
        """A field whose features are about ``scale`` mm wide."""
        return cls(rng.normal(0.0, 1.6 / scale, (waves, 3)), rng.uniform(0.0, 2.0 * np.pi, waves))

    def __call__(self, x: Array, y: Array, z: float) -> Array:
        """Values at the points (x, y, z), mm; ``x`` and ``y`` broadcast against each other."""
        if np.ndim(x) == np.ndim(y) == 2 and np.shape(x)[0] == np.shape(y)[1] == 1:
            return self._on_grid(x[0], y[:, 0], z)
        total = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)))
        for (kx, ky, kz), phase in zip(self.waves, self.phases, strict=True):
            total += np.cos(kx * x + ky * y + (kz * z + phase))
        return total * np.sqrt(2.0 / len(self.phases))

    def _on_grid(self, x: Array, y: Array, z: float) -> Array:
        """The same on a grid, by cos(a + b) = cos a cos b - sin a sin b.

        Without BLAS, whose sums differ between machines and whose threads wait for each other on a busy one.
        """
        kx, ky, kz = self.waves.T
        a, b = np.outer(x, kx), np.outer(y, ky) + (kz * z + self.phases)
        left, right = np.hstack([np.cos(b), -np.sin(b)]), np.hstack([np.cos(a), np.sin(a)])
        return np.einsum("ik,jk->ij", left, right) * np.sqrt(2.0 / len(self.phases))


def scanner_noise(rng: np.random.Generator, shape: tuple[int, int], deviation: float, sharpness: float) -> Array:
    """Noise of a reconstructed slice: blotches whose low frequencies the reconstruction's ramp filter takes out.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        deviation: Standard deviation, HU.
        sharpness: 0 for a soft-tissue kernel, 1 for a lung kernel.
    """
    white = rng.normal(size=shape)
    fine = 0.85 - 0.45 * sharpness
    noise = gaussian_filter(white, fine) - (0.35 + 0.4 * sharpness) * gaussian_filter(white, 2.4 * fine)
    return noise * (deviation / noise.std())
