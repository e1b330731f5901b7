"""Synthetic cases of clinical size: lesions as smooth random blobs, and a prediction that errs along their rims."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.uint8]
COARSE = 8  # voxels per node of the coarse random field


def lesion_volumes(shape: tuple[int, int, int], share: float, seed: int) -> tuple[Volume, Volume]:
    """Prediction and reference with about ``share`` of the voxels in the foreground, labels 0 and 1.

    The lesions keep to the middle of the image, as lungs do, and a second, finer field moves the rim of the
    prediction.
    """
    rng = np.random.default_rng(seed)
    coarse = tuple(-(-n // COARSE) + 1 for n in shape)
    field = ndimage.gaussian_filter(rng.normal(size=coarse), 2.0)
    field /= field.std()
    axes = [np.linspace(-1, 1, n) for n in coarse]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    field -= 4 * np.clip(distance - 0.6, 0, None)
    shift = 0.15 * rng.normal(size=coarse)
    level = float(np.quantile(field[:-1, :-1, :-1], 1 - share))
    return _cut(field + shift, shape, level), _cut(field, shape, level)


def lesion_slice(size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An 8-bit probability map and a reference of 0 and 1, both of shape (size, size)."""
    rng = np.random.default_rng(seed)
    coarse = size // COARSE
    field = ndimage.gaussian_filter(rng.normal(size=(coarse, coarse)), 3.0)
    field = ndimage.zoom(field / field.std(), COARSE, order=1)
    noise = ndimage.zoom(ndimage.gaussian_filter(rng.normal(size=(coarse, coarse)), 1.0), COARSE, order=1)
    reference = (field > 1.2).astype(np.uint8)
    probability = 1 / (1 + np.exp(-6 * (field - 1.2 + noise)))
    return np.rint(255 * probability).astype(np.uint8), reference


def _cut(field: NDArray[np.float64], shape: tuple[int, ...], level: float) -> Volume:
    """Where the field, interpolated to full size one slab at a time, exceeds a level."""
    mask = np.empty(shape, dtype=np.uint8)
    rows = ndimage.zoom(field.astype(np.float32), (1, COARSE, COARSE), order=1, grid_mode=True, mode="nearest")
    rows = rows[:, : shape[1], : shape[2]]
    for z in range(shape[0]):
        below, part = divmod(z, COARSE)
        mask[z] = rows[below] * (1 - part / COARSE) + rows[below + 1] * (part / COARSE) > level
    return mask
