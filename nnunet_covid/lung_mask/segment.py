"""Choosing among the ways to segment lungs, and saying which one was used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.figures.slices import LUNG_WINDOW
from nnunet_covid.lung_mask import pretrained
from nnunet_covid.lung_mask.threshold import lungs_in_slice, lungs_in_volume

METHODS = ("auto", "lungmask", "threshold")
BRIGHTEST = 255
"""Of the pictures that lungmask's network takes beside Hounsfield units."""


@dataclass(frozen=True)
class LungMask:
    """A lung mask and the name of the method that made it."""

    mask: NDArray[np.bool_]
    method: str


def check_weights(method: str, weights: Path | None) -> None:
    """Weights belong to lungmask's network.

    Raises:
        UserError: If they are given with the method ``threshold``, or are no file.
    """
    if weights is not None and method == "threshold":
        raise UserError(f"the method threshold has no use for {weights}; leave the weights out or choose lungmask")
    if weights is not None and not weights.is_file():
        raise UserError(f"{weights} does not exist; give the .pth file with lungmask's weights")


def unfit_for_network(image: NDArray[Any], *, is_hu: bool) -> str | None:
    """Why lungmask's network must not have an image, with the remedy; arguments as of :func:`segment_lungs`."""
    if is_hu or image.max() <= BRIGHTEST:
        return None
    kinds = "lungmask takes Hounsfield units, or grey values up to 255"
    return f"has grey values up to {image.max():g}, {kinds}; choose the method threshold, or export it in one of these"


def automatic_method(model: str, weights: Path | None) -> str:
    """What ``auto`` stands for on this machine where lungmask's network takes the image."""
    return "lungmask" if pretrained.is_ready(model, weights) else "threshold"


def segment_lungs(
    image: NDArray[Any],
    *,
    is_hu: bool,
    spacing: tuple[float, ...] | None = None,
    method: str = "auto",
    model: str = "R231",
    weights: Path | None = None,
) -> LungMask:
    """Segment both lungs.

    Args:
        image: Shape (z, y, x) with axial slices, or (y, x).
        is_hu: Whether the values are Hounsfield units; else any grey scale on which air is dark.
        spacing: Millimetres along x, y (and z); 1 where unknown.
        method: ``lungmask`` for the package of that name, ``threshold`` for the classical method, ``auto`` for
            lungmask if it is installed, its weights need no download and it takes the image, else the classical one.
        model: lungmask's model.
        weights: File with lungmask's weights.

    Raises:
        ValueError: If there is no such method.
        UserError: If lungmask was asked for and is not available or does not take the image, or as ``check_weights``
            does.
    """
    if method not in METHODS:
        message = f"unknown method {method!r}; there are {', '.join(METHODS)}"
        raise ValueError(message)
    check_weights(method, weights)
    unfit = unfit_for_network(image, is_hu=is_hu)
    if unfit and method == "lungmask":
        raise UserError(f"the image {unfit}")
    if method == "auto" and not unfit:
        method = automatic_method(model, weights)
    if method == "lungmask":
        mask = pretrained.lungs_by_network(image, is_hu=is_hu, model=model, weights=weights)
        return LungMask(mask, f"lungmask {weights.name if weights else model}")
    if is_hu and image.ndim == 3 and len(image) > 1:
        x, y, z = spacing if spacing is not None else (1.0, 1.0, 1.0)
        return LungMask(lungs_in_volume(image, (x, y, z)), "threshold (Hounsfield units)")
    if is_hu:
        image = image.clip(*LUNG_WINDOW)
    slices = image if image.ndim == 3 else image[None]
    mask = np.stack([lungs_in_slice(axial) for axial in slices])
    return LungMask(mask.reshape(image.shape), "threshold (grey values)")
