"""What the checks compute on images and masks as arrays: likeness, air under a mask, mirroring, orientation."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.filters import threshold_otsu

from nnunet_covid.figures.slices import LUNG_WINDOW
from nnunet_covid.lung_mask.regions import regions_outside
from nnunet_covid.raw_dataset import Scan
from nnunet_covid.raw_dataset.grey_scale import is_hounsfield

SIDE = 32
"""Pixels; enough to tell slices apart, too few to see how they were cropped."""

SLABS = 8
"""A volume is averaged to this many slices."""

DUPLICATE = 0.77
"""Correlation of thumbnails after subtracting their mean. On COVID-SemiSeg the known near-duplicates between the
official training and test slices (5 and 93, 17 and 91, 33 and 97) reach 0.78 to 0.94; over ten coronacases
patients no two slices of different patients exceed 0.765."""

ON_AIR = 0.5
"""A mask with more than this share of its voxels on air is reported."""

CLEARLY_BETTER = 0.8
"""Ratio of mean spreads; right masks of the three data sets at hand have at most 0.8 of their best mirror image's."""

AIR_HU = -950.0
"""Normal lung lies near -850 HU, air near -1000."""

TURNS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "as it is": lambda image: image,
    "turned by 90°": lambda image: np.rot90(image),
    "turned by 180°": lambda image: np.rot90(image, 2),
    "turned by 270°": lambda image: np.rot90(image, 3),
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "transposed": lambda image: image.T,
    "transposed the other way": lambda image: np.rot90(image, 2).T,
}

GROUP_SHARE = 0.75
"""Of a group's images that must agree: a single slice may look mirrored by chance."""

MARGIN = 0.05
"""By so much must another orientation correlate better with the template to count."""


def thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Shape (1, 32, 32) for a slice, (8, 32, 32) for a volume; mean 0, norm 1 (0 for a constant image)."""
    slabs = [image]
    if image.ndim == 3:
        edges = np.linspace(0, len(image), SLABS + 1).astype(int)
        slabs = [image[a : max(a + 1, b)].mean(axis=0) for a, b in itertools.pairwise(edges)]
    pictures = [Image.fromarray(slab.astype(np.float32)) for slab in slabs]
    return unit(np.stack([np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in pictures]))


def unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array with mean 0 and norm 1."""
    centred = array - array.mean()
    norm = float(np.linalg.norm(centred))
    return (centred / norm if norm > 0 else centred).astype(np.float32)


def near_duplicates(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]
) -> list[tuple[int, int, float]]:
    """Pairs of nearly equal images, one of each list, most similar first.

    What all images have in common (two lungs, a spine) says nothing about a pair: the mean thumbnail of the first
    list is taken off before correlating. With fewer than three images in it there is no meaningful mean.

    Args:
        first: Thumbnails.
        second: Thumbnails of the same shape.

    Returns:
        Index in the first list, index in the second, correlation.
    """
    if not len(first) or not len(second):
        return []
    mean = np.mean(first, axis=0) if len(first) >= 3 else np.zeros_like(first[0])
    a = np.stack([unit(image - mean).ravel() for image in first])
    b = np.stack([unit(image - mean).ravel() for image in second])
    similarity = a @ b.T
    pairs = np.argwhere(similarity > DUPLICATE)
    found = [(int(i), int(j), float(similarity[i, j])) for i, j in pairs]
    return sorted(found, key=lambda pair: -pair[2])


def share_on_air(scan: Scan, mask: NDArray[np.bool_]) -> float:
    """Share of a mask (not empty) on air: below ``AIR_HU``, or, in grey values, dark and joined to the edge."""
    if scan.is_hu:
        return float((scan.image[mask] < AIR_HU).mean())
    slices = [(scan.image, mask)] if mask.ndim == 2 else list(zip(scan.image, mask, strict=True))
    on_air = sum(int((_air_around(image) & part).sum()) for image, part in slices if part.any())
    return on_air / int(mask.sum())


def _air_around(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Dark regions that hold a corner of the picture."""
    return regions_outside(image < (threshold_otsu(image) if image.min() < image.max() else image.min()))


def spread_by_mirroring(image: NDArray[Any], mask: NDArray[np.bool_]) -> dict[tuple[int, ...], float]:
    """Standard deviation of the intensities inside the mask, as stored and with its axes mirrored.

    A lesion is more uniform than what a misplaced mask cuts out, which crosses pleura, vessels and bone.

    Returns:
        Mirrored array axes (``()`` for the mask as stored) to the standard deviation relative to the image's.
    """
    values = image.astype(np.float32).clip(*LUNG_WINDOW) if is_hounsfield(image) else image.astype(np.float32)
    overall = float(values.std()) or 1.0
    flips = itertools.product((0, 1), repeat=mask.ndim)
    mirrorings = [tuple(itertools.compress(range(mask.ndim), flipped)) for flipped in flips]
    return {mirrored: float(values[np.flip(mask, mirrored)].std()) / overall for mirrored in mirrorings}


def likely_mirroring(spreads: list[dict[tuple[int, ...], float]]) -> tuple[int, ...] | None:
    """The mirroring under which the masks of a data set fit their images clearly better; ``None`` if as stored."""
    if not spreads:
        return None
    mean = {mirrored: float(np.mean([spread[mirrored] for spread in spreads])) for mirrored in spreads[0]}
    best = min(mean, key=lambda mirrored: mean[mirrored])
    wins = sum(spread[best] < spread[()] for spread in spreads)
    clearly = mean[best] < CLEARLY_BETTER * mean[()] and wins > len(spreads) / 2
    return best if best != () and clearly else None


def better_orientation(image: NDArray[np.float32], template: NDArray[np.float32]) -> str | None:
    """The orientation in which an image is most like the template; ``None`` if that is the one it has.

    Args:
        image: Thumbnail, shape (y, x), mean 0 and norm 1.
        template: Mean of the thumbnails of the images that set the orientation.
    """
    scores = {name: float((turn(image) * template).sum()) for name, turn in TURNS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > scores["as it is"] + MARGIN * float(np.linalg.norm(template)) else None


def common_deviation(deviations: Sequence[str | None]) -> str | None:
    """The orientation that nearly all images of a group would need, if there is one."""
    most, count = Counter(deviations).most_common(1)[0]
    return most if count >= GROUP_SHARE * len(deviations) else None
