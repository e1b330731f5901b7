"""From probabilities to pseudo labels: how sure a prediction is, which voxels are trusted, and soft labels.

Arrays in, arrays out: what predicts and what writes is elsewhere.

Soft labels serve any loss: a loss that wants integers cannot take probabilities, so a hard label is drawn anew each
time a case is used. One threshold u, uniform in (0, 1), is drawn for the whole image and each voxel takes the class in
whose part of the stacked probabilities u falls. A voxel has class c with exactly its probability, so that the expected
cross entropy is that with the probabilities as target; and because u is shared, what the network sees is a shape, not
noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BACKGROUND = 0
STEPS = 255
"""Probabilities of soft labels are kept in as many steps."""


def votes(logits: Sequence[NDArray[np.floating]], *, regions: bool) -> NDArray[np.float32]:
    """Share of the mirrored predictions that vote for each channel, in the place of its probability.

    A softmax votes for its largest channel, a region's sigmoid for the region where it is above one half.

    Args:
        logits: One array (C, *spatial) per mirroring, mirrored back.
        regions: Whether the channels are regions.
    """
    total = np.zeros(logits[0].shape, np.float32)
    for one in logits:
        if regions:
            total += one > 0
        else:
            winner = one.argmax(0)[None]
            np.put_along_axis(total, winner, np.take_along_axis(total, winner, 0) + 1, 0)
    return total / np.float32(len(logits))


def certainty_of_prediction(
    probabilities: NDArray[np.floating], certainty: NDArray[np.floating], *, regions: bool
) -> NDArray[np.floating]:
    """How certain what was predicted is at each voxel, the least certain region counting.

    Args:
        probabilities: (C, *spatial), a softmax or one sigmoid per region: they say what is predicted.
        certainty: As many channels between 0 and 1: the probabilities themselves, or :func:`votes`.
        regions: Whether the channels are regions.
    """
    if regions:
        return np.where(probabilities > 0.5, certainty, 1 - certainty).min(0)
    return np.take_along_axis(certainty, probabilities.argmax(0)[None], 0)[0]


def mean_confidence(confidence: NDArray[np.floating], predicted: NDArray[np.integer]) -> float:
    """Mean over the predicted foreground; over all voxels where there is none.

    Background fills most of an image and is nearly always sure, so that a mean over all voxels would say how little
    was found rather than how sure it is.
    """
    foreground = predicted > 0
    chosen = confidence[foreground] if foreground.any() else confidence
    return float(np.mean(chosen, dtype=np.float64))


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
