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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BACKGROUND = 0
STEPS = 255
"""Probabilities of soft labels are kept in as many steps."""

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Heads:
    """What the output channels of a network stand for.

    Attributes:
        values: The label value of each channel: all labels, background first, or nnU-Net's ``regions_class_order``.
        regions: Whether the channels are overlapping regions with a sigmoid each, not the classes of a softmax.
    """

    values: tuple[int, ...]
    regions: bool = False

    def votes(self, logits: Sequence[Floats]) -> NDArray[np.float32]:
        """Share of the mirrored predictions that vote for each channel, in the place of its probability.

        A softmax votes for its largest channel, a region's sigmoid for the region where it is above one half.

        Args:
            logits: One array (C, *spatial) per mirroring, mirrored back.
        """
        total = np.zeros(logits[0].shape, np.float32)
        for one in logits:
            if self.regions:
                total += one > 0
            else:
                winner = one.argmax(0)[None]
                np.put_along_axis(total, winner, np.take_along_axis(total, winner, 0) + 1, 0)
        return total / np.float32(len(logits))

    def certainty_of_prediction(self, probabilities: Floats, certainty: Floats) -> Floats:
        """How certain what was predicted is at each voxel, the least certain region counting.

        Args:
            probabilities: (C, *spatial): they say what is predicted.
            certainty: As many channels between 0 and 1: the probabilities themselves, or :meth:`votes`.
        """
        if self.regions:
            return np.where(probabilities > 0.5, certainty, 1 - certainty).min(0)
        return np.take_along_axis(certainty, probabilities.argmax(0)[None], 0)[0]

    def trusted(
        self,
        probabilities: Floats,
        thresholds: Sequence[float],
        untrusted: int | None = None,
        certainty: Floats | None = None,
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """SSA-Net, eq. (9): class c where its probability is the largest and above η, else background.

        A region is drawn where its probability is above both one half (nnU-Net's rule) and η.

        Args:
            probabilities: (C, *spatial).
            thresholds: η of each channel.
            untrusted: ``None`` is the paper's reading, in which an infection of little confidence becomes background. A
                label value is given to every voxel of little confidence instead, background included: nothing is known
                about it. Of regions each counts, with one minus its certainty where it is not predicted.
            certainty: What η is compared with, in the shape of the probabilities; these if ``None``.

        Returns:
            The pseudo label and the prediction before thresholding, both of shape *spatial.
        """
        certainty = probabilities if certainty is None else certainty
        if self.regions:
            return self._trusted_regions(probabilities, thresholds, untrusted, certainty)
        winner = probabilities.argmax(0)
        predicted = np.asarray(self.values, np.int16)[winner]
        largest = np.take_along_axis(certainty, winner[None], 0)[0]
        trusted = largest > np.asarray(thresholds, probabilities.dtype)[winner]
        other = BACKGROUND if untrusted is None else untrusted
        return np.where(trusted, predicted, np.int16(other)), predicted

    def _trusted_regions(
        self, probabilities: Floats, thresholds: Sequence[float], untrusted: int | None, certainty: Floats
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        label = np.zeros(probabilities.shape[1:], np.int16)
        predicted = np.zeros_like(label)
        sure = np.ones(label.shape, bool)
        for channel, certain, value, eta in zip(probabilities, certainty, self.values, thresholds, strict=True):
            inside = channel > 0.5
            predicted[inside] = value
            label[inside & (certain > eta)] = value
            sure &= np.where(inside, certain, 1 - certain) > eta
        return label if untrusted is None else np.where(sure, predicted, np.int16(untrusted)), predicted

    def to_bytes(self, probabilities: Floats) -> NDArray[np.uint8]:
        """Probabilities of the foreground channels in 255 steps, (F, *spatial)."""
        foreground = probabilities if self.regions else probabilities[1:]
        return np.round(foreground * STEPS).astype(np.uint8)

    def draw(self, stored: NDArray[np.uint8], u: float) -> NDArray[np.int16]:
        """The label map at threshold ``u``.

        Args:
            stored: (F, *spatial) from :meth:`to_bytes`.
            u: In [0, 1); a region is drawn where its probability is above it.
        """
        level = u * STEPS
        label = np.zeros(stored.shape[1:], np.int16)
        if self.regions:
            for channel, value in zip(stored, self.values, strict=True):
                label[channel > level] = value
            return label
        reached = np.zeros(label.shape, np.float32)
        for channel, value in zip(stored, self.values[1:], strict=True):
            below = reached <= level
            reached += channel
            label[below & (reached > level)] = value
        return label


def mean_confidence(confidence: Floats, predicted: NDArray[np.integer]) -> float:
    """Mean over the predicted foreground; over all voxels where there is none.

    Background fills most of an image and is nearly always sure, so that a mean over all voxels would say how little
    was found rather than how sure it is.
    """
    foreground = predicted > 0
    chosen = confidence[foreground] if foreground.any() else confidence
    return float(np.mean(chosen, dtype=np.float64))
