"""Parts of the lungs in the patient's own directions: sides, lobes, zones of equal height.

Every array here lies as DICOM's axes do, (z, y, x) rising towards head, back and left hand: :func:`as_patient` brings
an image of any storage order there, up to the angle between its axes and the patient's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

LOBES = {
    "left upper lobe": 1,
    "left lower lobe": 2,
    "right upper lobe": 3,
    "right middle lobe": 4,
    "right lower lobe": 5,
}
"""Names and values of a lobe map, as the lobe model of lungmask (LTRCLobes) writes it."""
ZONES = ("lower", "middle", "upper")
BODY_ABOVE = -500.0
"""HU; between lung or air and any soft tissue."""
SECOND_LUNG = 0.1
"""Part of the larger lung's volume below which what lies apart from it is no lung of its own."""
DEEPEST_CUT_MM = 15.0
"""How far lungs that touch each other are eroded until they fall apart."""
NO_SIDES = "left and right lung cannot be told apart in the lung mask"


def as_patient(image: sitk.Image) -> sitk.Image:
    """The image with its axes in the order and sense nearest to DICOM's left, posterior, superior; no resampling."""
    return sitk.DICOMOrient(image, "LPS")


def storage_order(image: sitk.Image | sitk.ImageFileReader) -> str:
    """Storage order of an image, three letters as in DICOM."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def sides(lungs: Mask, image: NDArray[np.floating], spacing: tuple[float, float, float]) -> dict[str, Mask]:
    """Right and left lung.

    Lungs that lie apart are taken as they are. Lungs that touch are eroded until two large parts are left, and every
    voxel goes to the nearer part. The side is that of the body's middle on which a part's centre lies.

    Args:
        lungs: Mask of both (z, y, x).
        image: Hounsfield units, same shape.
        spacing: Millimetres along x, y, z.

    Returns:
        ``right lung`` and ``left lung``, either of which may be empty (a patient with one lung, whatever stray voxels
        lie on the other side); an empty dictionary where the lungs cannot be told apart.
    """
    if not lungs.any():
        return {}
    (box,) = ndimage.find_objects(lungs.astype(np.uint8))
    box = tuple(
        slice(max(0, side.start - 1), side.stop + 1) for side in box
    )  # what lies farther is nearest to no voxel
    found = {}
    for name, part in _split(lungs[box], _middle_of_body(image, lungs) - box[-1].start, spacing[::-1]).items():
        found[name] = np.zeros_like(lungs)
        found[name][box] = part
    return found


def _split(lungs: Mask, middle: float, size: tuple[float, ...]) -> dict[str, Mask]:
    """The two lungs of a mask; ``middle`` is an index along x, ``size`` in mm along z, y, x."""
    depth = 0.0
    distance: NDArray[np.floating] | None = None
    parts, centres, volumes = _parts(lungs)
    while _straddles(parts, centres, volumes, middle):
        depth += min(size)
        if depth > DEEPEST_CUT_MM:
            return {}
        if distance is None:
            distance = ndimage.distance_transform_edt(lungs, sampling=size)
        parts, centres, volumes = _parts(distance > depth)
    left = np.concatenate([[False], centres > middle])[parts]
    right = np.concatenate([[False], centres <= middle])[parts]
    if depth:
        nearest = ndimage.distance_transform_edt(
            ~(left | right), sampling=size, return_distances=False, return_indices=True
        )
        left = left[tuple(nearest)] & lungs
        right = lungs & ~left
    least = SECOND_LUNG * max(int(right.sum()), int(left.sum()))
    return {name: lung & (lung.sum() >= least) for name, lung in (("right lung", right), ("left lung", left))}


def _parts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.floating], NDArray[np.floating]]:
    """Connected parts (labels from 1), the centre of each along x, and its number of voxels."""
    parts, count = ndimage.label(mask)
    inside = np.flatnonzero(parts)
    labels, x = parts.ravel()[inside] - 1, inside % mask.shape[-1]
    volumes = np.bincount(labels, minlength=count).astype(float)
    return parts, np.bincount(labels, weights=x, minlength=count) / volumes, volumes


def _straddles(
    parts: NDArray[np.int32], centres: NDArray[np.floating], volumes: NDArray[np.floating], middle: float
) -> bool:
    """Whether the largest part reaches over the body's middle with more than a tenth of its volume, or none is left."""
    if not len(centres):
        return True
    largest = parts == volumes.argmax() + 1
    left = float(largest[..., int(np.ceil(middle)) :].sum()) / volumes.max()
    return min(left, 1 - left) > SECOND_LUNG


def _middle_of_body(image: NDArray[np.floating], lungs: Mask) -> float:
    """Index along x of the body's middle: half way between its outermost voxels, the median over slices with lung."""
    middles = []
    for axial in image[lungs.any(axis=(1, 2))]:
        parts, count = ndimage.label(axial > BODY_ABOVE)
        if count:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            columns = np.flatnonzero((parts == sizes.argmax()).any(axis=0))
            middles.append((columns[0] + columns[-1]) / 2)
    return float(np.median(middles)) if middles else (image.shape[-1] - 1) / 2


def zones_of(lungs: Mapping[str, Mask]) -> dict[str, Mask]:
    """Each lung cut across into three zones of equal height, from the lowest to the highest slice that it reaches.

    A slice belongs to the zone that its middle lies in.
    """
    zones: dict[str, Mask] = {}
    for name, lung in lungs.items():
        slices = np.flatnonzero(lung.any(axis=(1, 2)))
        first, height = (slices[0], slices[-1] + 1 - slices[0]) if len(slices) else (0, 1)
        third = np.clip((np.arange(len(lung)) + 0.5 - first) * 3 // height, 0, 2)
        for index, zone in reversed(list(enumerate(ZONES))):
            zones[f"{name.removesuffix(' lung')} {zone} zone"] = lung & (third == index)[:, None, None]
    return zones


def lobes_of(labels: NDArray[np.integer]) -> dict[str, Mask]:
    """The five lobes of a lobe map (z, y, x) with the values of :data:`LOBES`."""
    return {name: labels == value for name, value in LOBES.items()}
