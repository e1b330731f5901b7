"""Distances between the borders of two segmentations: HD95 and normalised surface Dice.

Nearest neighbours are found among border voxels with a k-d tree, which is exact and needs neither a distance map of the
whole image nor its memory: distance transforms take 2.8 to 6.6 times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.confusion import SLAB_VOXELS, Emptiness, emptiness, empty_distance, empty_overlap

# Two voxels exactly tau apart must not fall on different sides of tau because 0.1 * 3 > 0.3 in floating
# point.
TOLERANCE_SLACK = 1e-9
QUICK_BUILD = {"balanced_tree": False, "compact_nodes": False, "leafsize": 32}

Distances = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in the unit of the spacing, one per border voxel.

    ``to_reference`` from each border voxel of the prediction to the nearest of the reference,
    ``to_prediction`` the other way. Both are empty arrays where one of the borders does not exist; ``empty``
    says which.
    """

    to_reference: Distances
    to_prediction: Distances
    empty: Emptiness
    diagonal: float

    def hd95(self) -> float:
        """max(P₉₅ of ``to_reference``, P₉₅ of ``to_prediction``), percentiles interpolated linearly."""
        return self.hausdorff(percentile=95.0)

    def hausdorff(self, *, percentile: float = 100.0) -> float:
        """The larger of the two directed percentiles; 100 is the Hausdorff distance itself."""
        if self.empty:
            return self.diagonal
        directed = (self.to_reference, self.to_prediction)
        return max(_percentile(d, percentile) for d in directed)

    def nsd(self, tolerance: float) -> float:
        """(|{d ∈ to_reference : d ≤ τ}| + |{d ∈ to_prediction : d ≤ τ}|) / (number of border voxels of both).

        Nikolov et al., arXiv:1809.04430, with a border's size as its number of voxels, as in Seidlitz et al.,
        Medical Image Analysis 2022.
        """
        if self.empty:
            return empty_overlap(self.empty)
        limit = tolerance * (1 + TOLERANCE_SLACK)
        within = np.count_nonzero(self.to_reference <= limit) + np.count_nonzero(self.to_prediction <= limit)
        return int(within) / (self.to_reference.size + self.to_prediction.size)


def surface_distances(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    ignored: NDArray[np.bool_] | None = None,
) -> SurfaceDistances:
    """Distances between the border voxels of two masks of equal shape.

    Args:
        prediction: predicted mask, any number of axes.
        reference: reference mask, same shape.
        spacing: edge lengths of a voxel, one per axis of the masks.
        ignored: voxels without a known truth: no border lies in them or on their rim.

    Raises:
        ValueError: if shapes or the number of spacings do not agree.
    """
    if prediction.shape != reference.shape:
        msg = f"masks differ in shape: prediction {prediction.shape}, reference {reference.shape}"
        raise ValueError(msg)
    if len(spacing) != prediction.ndim:
        msg = f"{len(spacing)} spacings for masks of {prediction.ndim} axes"
        raise ValueError(msg)
    if ignored is not None:
        prediction, reference = prediction & ~ignored, reference & ~ignored
    shape = prediction.shape
    union_box = common_box(prediction, reference)
    if union_box is None:
        return _without_distances("both", shape, spacing)
    # One voxel more on each side, so that the crop's own edge makes no border where the image goes on.
    box = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(union_box, shape, strict=True))
    hidden = None if ignored is None else ignored[box]
    masks = [border_voxels(mask[box], hidden) for mask in (prediction, reference)]
    prediction_border, reference_border = (_Border(mask, flat_indices(mask)) for mask in masks)
    empty = emptiness(len(prediction_border.voxels), len(reference_border.voxels))
    if empty:
        return _without_distances(empty, shape, spacing)
    return SurfaceDistances(
        to_reference=_nearest(prediction_border, reference_border, spacing),
        to_prediction=_nearest(reference_border, prediction_border, spacing),
        empty="",
        diagonal=0.0,
    )


def _without_distances(empty: Emptiness, shape: tuple[int, ...], spacing: Sequence[float]) -> SurfaceDistances:
    none = np.empty(0, dtype=np.float64)
    return SurfaceDistances(none, none, empty, empty_distance(empty, shape, tuple(spacing)))


@dataclass(frozen=True)
class _Border:
    """A border as a mask and as the flat indices of its voxels."""

    mask: NDArray[np.bool_]
    voxels: NDArray[np.intp]


def _nearest(origin: _Border, target: _Border, spacing: Sequence[float]) -> Distances:
    """Distance from every voxel of ``origin`` to the nearest voxel of ``target``.

    A voxel on both borders has distance 0 and is not looked up.
    """
    distances = np.zeros(len(origin.voxels), dtype=np.float64)
    apart = np.flatnonzero(~target.mask.reshape(-1)[origin.voxels])
    if len(apart):
        # Imported late: SciPy's spatial package takes as long as scoring a hundred slices without distances.
        from scipy.spatial import cKDTree

        # The tree is asked once, so that a quick build pays more than a balanced tree.
        shape = target.mask.shape
        tree = cKDTree(_coordinates(target.voxels, shape, spacing), **QUICK_BUILD)
        distances[apart] = tree.query(_coordinates(origin.voxels[apart], shape, spacing))[0]
    return distances


def _coordinates(voxels: NDArray[np.intp], shape: tuple[int, ...], spacing: Sequence[float]) -> Distances:
    """Positions of voxels given by their flat index, shape (n, axes), in the unit of the spacing."""
    points = np.empty((len(voxels), len(shape)), dtype=np.float64)
    rest = voxels
    # Division by one number for all is several times faster than np.unravel_index.
    for axis in reversed(range(len(shape))):
        before = rest // shape[axis]
        np.multiply(rest - before * shape[axis], float(spacing[axis]), out=points[:, axis])
        rest = before
    return points


def _percentile(values: Distances, percentile: float) -> float:
    """The percentile with linear interpolation, as NumPy defines it, at a fraction of its overhead."""
    rank = percentile / 100 * (len(values) - 1)
    below = int(rank)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return low + (high - low) * (rank - below)


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
