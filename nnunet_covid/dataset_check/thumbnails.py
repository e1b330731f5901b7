"""Small normalised versions of images, by which whole data sets can be compared."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
"""Pixels; enough to tell slices apart, too few to see how they were cropped."""

SLABS = 8
"""A volume is averaged to this many slices."""


def thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Shape (1, 32, 32) for a slice, (8, 32, 32) for a volume; mean 0, norm 1 (0 for a constant image)."""
    slabs = [image] if image.ndim == 2 else [slab.mean(axis=0) for slab in _slabs(image)]
    small = np.stack(
        [
            np.asarray(Image.fromarray(slab.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX))
            for slab in slabs
        ]
    )
    return unit(small)


def _slabs(volume: NDArray[Any]) -> list[NDArray[Any]]:
    edges = np.linspace(0, len(volume), SLABS + 1)
    return [volume[int(a) : max(int(a) + 1, int(b))] for a, b in itertools.pairwise(edges)]


def unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array with mean 0 and norm 1."""
    centred = array - array.mean()
    norm = float(np.linalg.norm(centred))
    return (centred / norm if norm > 0 else centred).astype(np.float32)
