"""Images that lie differently from the rest: mirrored, turned, or with another direction in the header."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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

MARGIN = 0.05
"""By so much must another orientation correlate better with the template to count."""


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
    found = [name for name in deviations if name is not None]
    if not found:
        return None
    most = max(set(found), key=found.count)
    return most if found.count(most) >= GROUP_SHARE * len(deviations) else None


GROUP_SHARE = 0.75
"""Of a group's images that must agree: a single slice may look mirrored by chance."""
