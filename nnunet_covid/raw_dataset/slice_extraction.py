"""Axial slices of a volume as cases of their own."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from nnunet_covid.raw_dataset.options import SliceSelection
from nnunet_covid.raw_dataset.scan import Geometry, Scan


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
    def cut(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else np.ascontiguousarray(array.take(index, axis=axis))

    in_plane = [2 - a for a in (2, 1, 0) if a != axis]  # positions in the x, y, z order
    geometry = None
    if scan.geometry is not None:
        spacing = tuple(scan.geometry.spacing[i] for i in in_plane)
        geometry = Geometry(spacing, (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    image = cut(scan.image)
    assert image is not None
    return replace(scan, image=image, label=cut(scan.label), lungs=cut(scan.lungs), geometry=geometry, notes={})
