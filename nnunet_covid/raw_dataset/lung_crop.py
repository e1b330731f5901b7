"""Cropping to a rectangle around the lungs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnunet_covid.raw_dataset.scan import Geometry, Scan


def crop_around_lungs(scan: Scan, height: int, width: int) -> Scan:
    """Crop in plane to height × width around the lung mask's centre of gravity (SSA-Net §4.2: 512 × 512).

    The rectangle is moved inside the image where it would reach beyond its edge; an image that is smaller along
    an axis keeps that axis whole. Without lungs the centre is the image's.

    Args:
        scan: With a lung mask.
        height: Pixels along y.
        width: Pixels along x.
    """
    if scan.lungs is None:
        raise ValueError("cropping needs a lung mask")
    positions = np.argwhere(scan.lungs)
    shape = np.array(scan.image.shape)
    centre = (positions.mean(axis=0) if len(positions) else (shape - 1) / 2)[-2:]
    size = np.minimum((height, width), shape[-2:])
    start = np.clip(np.rint(centre - (size - 1) / 2).astype(int), 0, shape[-2:] - size)
    box = (..., slice(start[0], start[0] + size[0]), slice(start[1], start[1] + size[1]))
    return replace(
        scan,
        image=scan.image[box],
        label=None if scan.label is None else scan.label[box],
        lungs=scan.lungs[box],
        geometry=None if scan.geometry is None else _shifted(scan.geometry, int(start[1]), int(start[0])),
        notes={**scan.notes, "crop_start_yx": start.tolist()},
    )


def _shifted(geometry: Geometry, x: int, y: int) -> Geometry:
    dimension = len(geometry.spacing)
    offset = np.zeros(dimension)
    offset[:2] = (x * geometry.spacing[0], y * geometry.spacing[1])
    direction = np.array(geometry.direction).reshape(dimension, dimension)
    return replace(geometry, origin=tuple((np.array(geometry.origin) + direction @ offset).tolist()))
