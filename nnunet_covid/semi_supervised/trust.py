"""Which voxels of a prediction become a pseudo label (SSA-Net, eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BACKGROUND = 0


def trusted_labels(
    probabilities: NDArray[np.floating],
    labels: Sequence[int],
    thresholds: Sequence[float],
    untrusted: int | None = None,
    certainty: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Eq. (9): class c where its probability is the largest and above η, else background.

    Args:
        probabilities: (C, *spatial), a softmax.
        labels: The label value of each channel.
        thresholds: η of each channel.
        untrusted: ``None`` is the paper's reading, in which an infection of little confidence becomes background. A
            label value is given to every voxel of little confidence instead, background included: nothing is known
            about it.
        certainty: What η is compared with, in the shape of the probabilities; these if ``None``.

    Returns:
        The pseudo label and the prediction before thresholding, both of shape *spatial.
    """
    winner = probabilities.argmax(0)
    predicted = np.asarray(labels, np.int16)[winner]
    largest = np.take_along_axis(probabilities if certainty is None else certainty, winner[None], 0)[0]
    trusted = largest > np.asarray(thresholds, probabilities.dtype)[winner]
    other = BACKGROUND if untrusted is None else untrusted
    return np.where(trusted, predicted, np.int16(other)), predicted


def trusted_regions(
    probabilities: NDArray[np.floating],
    order: Sequence[int],
    thresholds: Sequence[float],
    untrusted: int | None = None,
    certainty: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Eq. (9) for overlapping regions, each with a probability of its own.

    A region is drawn where its probability is above both one half (nnU-Net's rule) and η.

    Args:
        probabilities: (R, *spatial), one sigmoid per region.
        order: The label value that each region writes, in nnU-Net's ``regions_class_order``.
        thresholds: η of each region.
        untrusted: As in :func:`trusted_labels`; a voxel is untrusted where any region's certainty, or one minus it
            where the region is not predicted, is not above η.
        certainty: As in :func:`trusted_labels`.

    Returns:
        The pseudo label and the prediction before thresholding, both of shape *spatial.
    """
    label = np.zeros(probabilities.shape[1:], np.int16)
    predicted = np.zeros_like(label)
    sure = np.ones(label.shape, bool)
    sureness = probabilities if certainty is None else certainty
    for channel, certain, value, threshold in zip(probabilities, sureness, order, thresholds, strict=True):
        inside = channel > 0.5
        predicted[inside] = value
        label[inside & (certain > threshold)] = value
        sure &= np.where(inside, certain, 1 - certain) > threshold
    if untrusted is not None:
        label = np.where(sure, predicted, np.int16(untrusted))
    return label, predicted


def voxels_of(label: NDArray[np.integer], values: Sequence[int] | int) -> int:
    """Number of voxels that hold one of the values."""
    return int(np.isin(label, values).sum())
