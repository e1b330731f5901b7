"""An image with its segmentation in memory, and how it is changed on the way: grey scale, crop, slices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.geometry import Geometry

PLANE = (1.0, 0.0, 0.0, 1.0)
"""Direction of a slice on its own."""


@dataclass
class Scan:
    """One image and what belongs to it.

    Attributes:
        image: Shape (y, x) for a slice, (z, y, x) for a volume.
        label: Class indices, same shape, or ``None`` where there is no reference.
        lungs: Lung mask, same shape, boolean, or ``None``.
        geometry: ``None`` for pictures without a physical size.
        is_hu: Whether the values are Hounsfield units.
        notes: What the reader found worth recording in ``conversion.json``.
    """

    image: NDArray[Any]
    label: NDArray[np.uint8] | None = None
    lungs: NDArray[np.bool_] | None = None
    geometry: Geometry | None = None
    is_hu: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def to_8_bit(hounsfield: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map [low, high] linearly to [0, 255], clipped and rounded; SSA-Net §4.2 uses [-1250, 250]."""
    scaled = (hounsfield.astype(np.float32) - low) / (high - low) * 255
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def from_8_bit(grey: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """The Hounsfield units that ``to_8_bit`` mapped to these grey values; what was clipped stays lost."""
    return (grey.astype(np.float32) / 255 * (high - low) + low).astype(np.float32)


def crop_around_lungs(scan: Scan, height: int, width: int) -> Scan:
    """Crop in plane to height × width around the lung mask's centre of gravity (SSA-Net §4.2: 512 × 512).

    The rectangle is moved inside the image where it would reach beyond its edge; an image that is smaller along
    an axis keeps that axis whole. Without lungs the centre is the image's.

    Args:
        scan: With a lung mask.
        height: Pixels along y.
        width: Pixels along x.
    """
    assert scan.lungs is not None
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


@dataclass(frozen=True)
class SliceSelection:
    """Which axial slices of a volume become cases of their own.

    Attributes:
        only_with_lesion: Drop slices whose label map is all background.
        every: Of the slices left, keep each n-th.
        at_most: Of the slices left, keep at most this many per volume, drawn at random.
        seed: Seed of that draw; the draw also depends on the case's name.
    """

    only_with_lesion: bool = False
    every: int = 1
    at_most: int | None = None
    seed: int = 12345


def extract_slices(scan: Scan, name: str, selection: SliceSelection) -> dict[str, Scan]:
    """The selected slices by their case name, ``<name>_<index>``.

    Args:
        scan: A volume; its axis closest to the patient's head–foot axis is cut along.
        name: Name of the volume, which stays in the slices' names.
        selection: Which slices to keep.
    """
    axis = _axial_axis(scan.geometry)
    count = scan.image.shape[axis]
    slices = [_slice(scan, axis, index) for index in range(count)]
    kept = selected_indices([piece.label is None or bool(piece.label.any()) for piece in slices], name, selection)
    digits = max(3, len(str(count - 1)))
    return {f"{name}_{index:0{digits}d}": slices[index] for index in kept}


def selected_indices(has_lesion: list[bool], name: str, selection: SliceSelection) -> list[int]:
    """Indices of the slices to keep, ascending; the same for the same name and seed."""
    candidates = [i for i, lesion in enumerate(has_lesion) if lesion or not selection.only_with_lesion]
    candidates = candidates[:: selection.every]
    if selection.at_most is None or len(candidates) <= selection.at_most:
        return candidates
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.default_rng([selection.seed, int.from_bytes(digest[:4], "big")])
    return sorted(int(i) for i in generator.choice(candidates, selection.at_most, replace=False))


def _axial_axis(geometry: Geometry | None) -> int:
    """The array axis (z, y, x) that runs most nearly along the body."""
    if geometry is None:
        return 0
    head_foot = np.abs(np.array(geometry.direction).reshape(3, 3)[2])  # one entry for each of x, y, z
    return 2 - int(head_foot.argmax())


def _slice(scan: Scan, axis: int, index: int) -> Scan:
    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array.take(index, axis=axis))

    geometry = None
    if scan.geometry is not None:
        in_plane = tuple(scan.geometry.spacing[2 - a] for a in (2, 1, 0) if a != axis)
        geometry = Geometry(in_plane, (0.0, 0.0), PLANE)
    label = None if scan.label is None else cut(scan.label)
    lungs = None if scan.lungs is None else cut(scan.lungs)
    return replace(scan, image=cut(scan.image), label=label, lungs=lungs, geometry=geometry, notes={})
