"""Soft pseudo labels for any loss: a hard label drawn anew each time a case is used.

A loss that wants integers cannot take probabilities. One threshold u, uniform in (0, 1), is drawn for the whole image
and each voxel takes the class in whose part of the stacked probabilities u falls. A voxel has class c with exactly its
probability, so that the expected cross entropy is that with the probabilities as target; and because u is shared, what
the network sees is a shape, not noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = 255
"""Probabilities are kept in as many steps."""


def to_bytes(probabilities: NDArray[np.floating], *, regions: bool) -> NDArray[np.uint8]:
    """Probabilities of the foreground channels in 255 steps, (F, *spatial)."""
    foreground = probabilities if regions else probabilities[1:]
    return np.round(foreground * STEPS).astype(np.uint8)


def draw_labels(stored: NDArray[np.uint8], values: Sequence[int], u: float, *, regions: bool) -> NDArray[np.int16]:
    """The label map at threshold ``u``.

    Args:
        stored: (F, *spatial) from :func:`to_bytes`.
        values: The label value of each channel; for regions ``regions_class_order``.
        u: In [0, 1).
        regions: Whether the channels are regions: each is drawn where its probability is above u.
    """
    level = u * STEPS
    label = np.zeros(stored.shape[1:], np.int16)
    if regions:
        for channel, value in zip(stored, values, strict=True):
            label[channel > level] = value
        return label
    reached = np.zeros(label.shape, np.float32)
    for channel, value in zip(stored, values, strict=True):
        below = reached <= level
        reached += channel
        label[below & (reached > level)] = value
    return label
