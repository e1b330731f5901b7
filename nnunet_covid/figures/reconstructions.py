"""The picture of a pre-training: patches, what is hidden of them, and what the network puts there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.figures.sheets import write_sheet
from nnunet_covid.figures.slices import Colour, as_rgb, grey_slice

FILE = "reconstructions.png"
HIDDEN: Colour = (86, 110, 140)
"""Of hidden voxels: no grey value, so that nobody takes them for a part of the image."""
HEADINGS = ("image", "seen by the network", "reconstruction")


class Reconstruction(NamedTuple):
    """A patch (*spatial, two or three axes), where it was hidden, and what the network returned."""

    image: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    reconstruction: NDArray[np.float32]


def draw_reconstructions(path: Path, patches: Sequence[Reconstruction], title: str) -> None:
    """Draw three panels for each patch, two patches in a row; of a volume its middle slice."""
    panels = [panel for patch in patches for panel in zip(HEADINGS, pictures(patch), strict=True)]
    write_sheet(path, panels, title=title, columns=6)


def pictures(patch: Reconstruction) -> list[NDArray[Any]]:
    """Image, image without what is hidden, and the network's result there in the image, (y, x, 3) in one grey scale."""
    image, hidden, found = (a if a.ndim == 2 else a[len(a) // 2] for a in patch)
    whole, filled = np.split(grey_slice(np.concatenate([image, np.where(hidden, found, image)])), 2)
    seen = np.where(hidden[..., None], np.asarray(HIDDEN, np.uint8), as_rgb(whole))
    return [as_rgb(whole), seen, as_rgb(filled)]
