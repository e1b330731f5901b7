"""An image with its segmentation in memory, and how it is changed on the way: grey scale, crop, slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.geometry import Geometry, Turn

PLANE = (1.0, 0.0, 0.0, 1.0)
"""Direction of a slice on its own."""

PLANES = ("axial", "coronal", "sagittal")
"""Of a slice, by the axis of an upright volume that it is cut across."""


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
    """Crop axial slices to height × width around the lung mask's centre of gravity (SSA-Net §4.2: 512 × 512).

    Height is measured from front to back and width from right to left, in whatever order the volume is stored. The
    rectangle is moved inside the image where it would reach beyond its edge; an image that is smaller along an axis
    keeps that axis whole. Without lungs the centre is the image's.

    Args:
        scan: With a lung mask.
        height: Pixels along y.
        width: Pixels along x.
    """
    assert scan.lungs is not None
    axes = list(Turn.upright(scan.geometry).order[1:] if scan.image.ndim == 3 else (0, 1))
    positions = np.argwhere(scan.lungs)
    shape = np.array(scan.image.shape)
    centre = positions.mean(axis=0) if len(positions) else (shape - 1) / 2
    size = shape.copy()
    size[axes] = np.minimum((height, width), shape[axes])
    start = np.clip(np.rint(centre - (size - 1) / 2).astype(int), 0, shape - size)
    box = tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))
    return replace(
        scan,
        image=scan.image[box],
        label=None if scan.label is None else scan.label[box],
        lungs=scan.lungs[box],
        geometry=None if scan.geometry is None else _shifted(scan.geometry, start),
        notes={**scan.notes, "crop_start_yx": start[axes].tolist()},
    )


def _shifted(geometry: Geometry, start: NDArray[np.int_]) -> Geometry:
    """The geometry of what begins at a voxel, given in the order of the array."""
    offset = start[::-1] * np.array(geometry.spacing)
    direction = np.reshape(geometry.direction, (len(offset), len(offset)))
    return replace(geometry, origin=tuple((np.array(geometry.origin) + direction @ offset).tolist()))


@dataclass(frozen=True)
class SliceSelection:
    """Which axial slices of a volume become cases of their own.

    Attributes:
        only_with_lesion: Drop slices in whose label map no lesion is marked.
        every: Of the slices left, keep each n-th.
        at_most: Of the slices left, keep at most this many per volume, drawn at random.
        seed: Seed of that draw; the draw also depends on the case's name.
    """

    only_with_lesion: bool = False
    every: int = 1
    at_most: int | None = None
    seed: int = 12345


def extract_slices(scan: Scan, name: str, selection: SliceSelection, lesions: Sequence[int]) -> dict[str, Scan]:
    """The selected axial slices by their case name, ``<name>_<index>``, counted from the feet.

    However the volume is stored, a slice lies as DICOM lays it: front above, the patient's right on the left.

    Args:
        scan: A volume.
        name: Name of the volume, which stays in the slices' names.
        selection: Which slices to keep.
        lesions: The values of the label map that mark a lesion.
    """
    turn = Turn.upright(scan.geometry)
    image, label, lungs = (None if array is None else turn(array) for array in (scan.image, scan.label, scan.lungs))
    assert image is not None
    geometry = None
    if scan.geometry is not None:
        geometry = Geometry(turn.spacing(scan.geometry)[:2], (0.0, 0.0), PLANE)
    has_lesion = [True] * len(image) if label is None else [bool(np.isin(axial, lesions).any()) for axial in label]
    kept = selected_indices(has_lesion, name, selection)
    digits = max(3, len(str(len(image) - 1)))

    def cut(volume: NDArray[Any] | None, index: int) -> Any:
        return None if volume is None else np.ascontiguousarray(volume[index])

    return {
        f"{name}_{i:0{digits}d}": replace(
            scan, image=cut(image, i), label=cut(label, i), lungs=cut(lungs, i), geometry=geometry, notes={}
        )
        for i in kept
    }


def selected_indices(has_lesion: list[bool], name: str, selection: SliceSelection) -> list[int]:
    """Indices of the slices to keep, ascending; the same for the same name and seed."""
    candidates = [i for i, lesion in enumerate(has_lesion) if lesion or not selection.only_with_lesion]
    candidates = candidates[:: selection.every]
    if selection.at_most is None or len(candidates) <= selection.at_most:
        return candidates
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.default_rng([selection.seed, int.from_bytes(digest[:4], "big")])
    return sorted(int(i) for i in generator.choice(candidates, selection.at_most, replace=False))


def plane_of(scan: Scan) -> str | None:
    """The plane of an image of a single slice: ``axial``, ``coronal``, ``sagittal``; ``None`` of a volume.

    What has two axes, or does not say how it lies, counts as axial.
    """
    if scan.image.ndim == 2:
        return "axial"
    thickness = Turn.upright(scan.geometry)(scan.image).shape
    return next((name for name, voxels in zip(PLANES, thickness, strict=True) if voxels == 1), None)
