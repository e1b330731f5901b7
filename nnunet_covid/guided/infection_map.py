"""The infection map as an image channel: what it holds, how it is stored, and what nnU-Net is told about it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MapKind = Literal["label", "probability"]
MAP_KINDS = ("label", "probability")
PICTURE_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
NO_NORMALISATION = "nonorm"
DIVIDED_BY_255 = "rgb_to_0_1"


def channel_name(kind: MapKind, ending: str) -> str:
    """The channel's name, by which nnU-Net chooses its normalisation: the network always sees 0 to 1.

    Pictures (3D TIFF among them) hold whole numbers, so probabilities are stored there as 0 to 255.
    """
    return DIVIDED_BY_255 if kind == "probability" and ending in PICTURE_ENDINGS else NO_NORMALISATION


def from_labels(labels: NDArray[Any], ignore_label: int | None = None) -> NDArray[np.bool_]:
    """Where there is any class at all; ignored voxels count as none."""
    infection = labels > 0
    return infection if ignore_label is None else infection & (labels != ignore_label)


def from_probabilities(probabilities: NDArray[np.float32], has_regions: bool) -> NDArray[np.float32]:
    """Probability of any class: (heads, *axes) to (*axes).

    With a softmax everything but the background; with regions the largest, since they lie within each other.
    """
    return probabilities.max(axis=0) if has_regions else 1 - probabilities[0]


def as_channel(infection: NDArray[Any], kind: MapKind, ending: str) -> NDArray[Any]:
    """The values that are stored: 0 and 1, probabilities, or probabilities in 255 steps.

    Args:
        infection: Boolean for ``"label"``, probabilities for ``"probability"``.
    """
    if kind == "label":
        return infection.astype(np.uint8)
    if channel_name(kind, ending) == DIVIDED_BY_255:
        return np.round(infection.clip(0, 1) * 255).astype(np.uint8)
    return infection.clip(0, 1).astype(np.float32)
