"""Distances between the borders of two segmentations: HD95 and normalised surface Dice.

Nearest neighbours are found among border voxels with a k-d tree, which is exact and needs neither a distance
map of the whole image nor its memory; in 2D, those that lie within a few pixels with a table first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.borders import border_voxels, common_box, flat_indices
from nnunet_covid.evaluation.empty_policy import Emptiness, emptiness, empty_distance, empty_overlap
from nnunet_covid.evaluation.near_pixels import near_distances

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


def hausdorff_95(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """HD95 of two masks in the unit of the spacing; see :meth:`SurfaceDistances.hd95`."""
    return surface_distances(prediction, reference, spacing).hd95()


def normalised_surface_dice(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    *,
    tolerance: float = 3.0,
) -> float:
    """NSD of two masks at a tolerance in the unit of the spacing; see :meth:`SurfaceDistances.nsd`."""
    return surface_distances(prediction, reference, spacing).nsd(tolerance)


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
