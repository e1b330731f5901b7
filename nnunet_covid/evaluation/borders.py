"""Border voxels of a mask: where distances between two segmentations are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Arrays of this size are allocated over and over without a page fault, which costs more than the arithmetic.
SLAB_VOXELS = 1 << 21


def border_voxels(mask: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Foreground voxels with at least one face neighbour in the background; outside the image is background.

    ``border = M ∧ ¬erode(M)`` with the face-connected structuring element.

    Args:
        mask: foreground, any number of axes.
        ignored: voxels whose truth is unknown. They are neither foreground nor background: they are no border
            themselves and make no border of a neighbour.

    Returns:
        A new array of the shape of ``mask``.
    """
    border = np.empty_like(mask, order="C")
    depth = max(1, SLAB_VOXELS // max(1, mask[:1].size))
    for start in range(0, len(mask), depth):
        # One more plane on either side, for the neighbours.
        halo = slice(max(start - 1, 0), start + depth + 1)
        block, hidden = mask[halo], None if ignored is None else ignored[halo]
        rim = _block_border(block, hidden)
        border[start : start + depth] = rim[start - halo.start :][:depth]
    return border


def flat_indices(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """``np.flatnonzero`` of a contiguous mask with little foreground, at a third of the time."""
    flat = mask.reshape(-1)
    whole = flat.size - flat.size % 8
    eights = flat[:whole].view(np.uint64)
    occupied = np.flatnonzero(eights != 0)
    within = np.flatnonzero(flat[:whole].reshape(-1, 8)[occupied])
    indices = 8 * occupied[within >> 3] + (within & 7)
    return np.concatenate([indices, whole + np.flatnonzero(flat[whole:])])


def common_box(*masks: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds the foreground of all masks, as one slice per axis; None if all are empty."""
    boxes = [box for mask in masks if (box := foreground_box(mask)) is not None]
    if not boxes:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))


def foreground_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds all foreground, as one slice per axis; None for an empty mask."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        # Each axis is cropped before the next one is looked at: the later, strided reductions see little.
        other_axes = tuple(a for a in range(mask.ndim) if a != axis)
        occupied = np.flatnonzero(mask[tuple(box)].any(axis=other_axes))
        if occupied.size == 0:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _block_border(block: NDArray[np.bool_], ignored: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    solid = np.ascontiguousarray(block if ignored is None else block | ignored)
    interior = _interior(solid)
    if ignored is not None:
        interior |= ignored
    return np.greater(block, interior, out=interior)  # block ∧ ¬interior


def _interior(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a contiguous array that are solid, as are all their face neighbours; outside it nothing is.

    A neighbour along an axis lies a fixed number of elements away in memory, so each direction is one pass over flat
    arrays. What that wraps around an edge of the image only ever meets voxels on the edge, which are no interior.
    """
    interior = solid.copy()
    flat, flat_solid = interior.reshape(-1), solid.reshape(-1)
    step = 1
    for axis in reversed(range(solid.ndim)):
        flat[step:] &= flat_solid[:-step]
        flat[:-step] &= flat_solid[step:]
        step *= solid.shape[axis]
    for axis in range(solid.ndim):
        faces = np.moveaxis(interior, axis, 0)
        faces[:1] = False
        faces[-1:] = False
    return interior
