"""Distances between the borders of two segmentations: HD95 and normalised surface Dice.

Nearest neighbours are found among border voxels with a k-d tree, which is exact and needs neither a distance map of the
whole image nor its memory: distance transforms take 2.8 to 6.6 times as long. In 2D, those within a few pixels, as most
are, are found with a table first; without it PNG label maps take 14 % longer to evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.confusion import Emptiness, emptiness

# Two voxels exactly tau apart must not fall on different sides of tau because 0.1 * 3 > 0.3 in floating
# point.
TOLERANCE_SLACK = 1e-9
QUICK_BUILD = {"balanced_tree": False, "compact_nodes": False, "leafsize": 32}

Distances = NDArray[np.float64]

REACH = 7  # rows above and below, and whole columns on either side, that are looked at
WINDOW = 16  # bits of a row: columns −8 to +7 around the pixel
CENTRE = 8
NOTHING = 255


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
        if self.empty:
            return self.diagonal
        return max(_percentile(d, 95.0) for d in (self.to_reference, self.to_prediction))

    def nsd(self, tolerance: float) -> float:
        """(|{d ∈ to_reference : d ≤ τ}| + |{d ∈ to_prediction : d ≤ τ}|) / (number of border voxels of both).

        Nikolov et al., arXiv:1809.04430, with a border's size as its number of voxels, as in Seidlitz et al.,
        Medical Image Analysis 2022.
        """
        if self.empty:
            return float(self.empty == "both")
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
    union_box = foreground_box(prediction | reference)
    if union_box is None:
        return _without_distances("both", shape, spacing)
    # One voxel more on each side, so that the crop's own edge makes no border where the image goes on.
    box = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(union_box, shape, strict=True))
    hidden = None if ignored is None else ignored[box]
    masks = [border_voxels(mask[box], hidden) for mask in (prediction, reference)]
    prediction_border, reference_border = (_Border(mask, np.flatnonzero(mask)) for mask in masks)
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
    """HD95 is then 0 where both masks are empty, else the diagonal √Σ(nᵢ·sᵢ)² of the image; NSD is 1 or 0."""
    none = np.empty(0, dtype=np.float64)
    diagonal = 0.0 if empty == "both" else math.sqrt(float(np.sum((np.asarray(shape) * np.asarray(spacing)) ** 2)))
    return SurfaceDistances(none, none, empty, diagonal)


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
    if target.mask.ndim == 2 and len(apart):
        distances[apart], sure = near_distances(origin.voxels[apart], target.mask, spacing)
        apart = apart[~sure]
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
    solid = np.ascontiguousarray(mask if ignored is None else mask | ignored)
    interior = _interior(solid)
    if ignored is not None:
        interior |= ignored
    return np.greater(mask, interior, out=interior)  # mask ∧ ¬interior


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


def near_distances(
    pixels: NDArray[np.intp], target: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Distance from each pixel to the nearest target, and where it is sure to be the nearest.

    Args:
        pixels: flat indices into the image.
        target: mask of shape (rows, columns).
        spacing: edge lengths of a pixel, rows and columns.

    Returns:
        Two arrays of the shape of ``pixels``. Where the second is False, no target lies within reach or a nearer one
        may lie beyond it; the first then says nothing.
    """
    words, row_bytes = _packed_words(target)
    row = pixels // target.shape[1]
    column = pixels - row * target.shape[1]
    # One line per row offset: reductions over the first axis run along memory.
    first = row * row_bytes + (column >> 3)
    bits = words[first + row_bytes * np.arange(2 * REACH + 1)[:, None]]
    bits >>= (column & 7).astype(np.uint32)
    bits &= (1 << WINDOW) - 1
    height, width = (float(s) for s in spacing)
    squares = np.full(NOTHING + 1, np.inf)
    squares[: CENTRE + 1] = (width * np.arange(CENTRE + 1)) ** 2
    across = squares.take(NEAREST_BIT.take(bits.astype(np.intp)))  # take is twice as fast as indexing here
    across += ((height * np.arange(-REACH, REACH + 1)) ** 2)[:, None]
    distances = np.sqrt(across.min(axis=0))
    return distances, distances <= (REACH + 1) * min(height, width)


def _packed_words(target: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
    """For each byte of the packed image the 24 bits that begin with it, and the number of bytes of a row.

    The image has a margin: bit 0 of the word of row i and byte 0 is the pixel (i − REACH, −CENTRE).
    """
    rows, columns = target.shape
    row_bytes = -(-(columns + 2 * CENTRE) // 8)
    framed = np.zeros((rows + 2 * REACH, 8 * row_bytes), dtype=np.bool_)
    framed[REACH : REACH + rows, CENTRE : CENTRE + columns] = target
    packed = np.zeros(framed.shape[0] * row_bytes + 2, dtype=np.uint32)
    packed[:-2] = np.packbits(framed, bitorder="little")
    return packed[:-2] | packed[1:-1] << 8 | packed[2:] << 16, row_bytes


def _nearest_bit() -> NDArray[np.uint8]:
    """How far the nearest set bit lies from the centre, for each window."""
    table = np.full(1 << WINDOW, NOTHING, dtype=np.uint8)
    windows = np.arange(1 << WINDOW)
    for bit in sorted(range(WINDOW), key=lambda b: -abs(b - CENTRE)):
        table[windows >> bit & 1 == 1] = abs(bit - CENTRE)
    return table


NEAREST_BIT = _nearest_bit()
