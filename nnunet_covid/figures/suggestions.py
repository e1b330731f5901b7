"""The contact sheet of images to label next: each small, beside it where the predictions disagree."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.figures.scan_views import drawn_shape
from nnunet_covid.figures.sheets import write_sheet
from nnunet_covid.figures.slices import WHITE, as_rgb, grey_slice, heat_over, outlined, scaled

SIDE = 256
"""Of a thumbnail, at most."""
SHOWN = 60
"""Images on a sheet, at most."""

Thumbnail = tuple[bytes, ...]
"""PNG files of the image and, where predictions were compared, of the map over it."""


def thumbnail(
    image: NDArray[np.float32],
    bits: NDArray[np.float32] | None,
    infected: NDArray[np.bool_] | None,
    spacing: tuple[float, float],
) -> Thumbnail:
    """A slice in square pixels; with a map of disagreement twice, both with the outline of what was predicted.

    Args:
        image: (y, x), of any values.
        bits: (y, x); its largest value becomes the hottest colour.
        infected: (y, x).
        spacing: Of rows and columns.
    """
    grey = grey_slice(image)
    pictures = [as_rgb(grey)] if bits is None else [as_rgb(grey), heat_over(grey, scaled(bits))]
    shape = drawn_shape((image.shape[0], image.shape[1]), spacing, SIDE)
    packed = []
    for picture in pictures:
        shown = picture if infected is None else outlined(picture, {WHITE: infected})
        stream = io.BytesIO()
        Image.fromarray(shown.astype(np.uint8)).resize(shape[::-1], Image.Resampling.BILINEAR).save(stream, "PNG")
        packed.append(stream.getvalue())
    return tuple(packed)


def write_suggestions(path: Path, chosen: Sequence[tuple[str, Thumbnail]], *, title: str) -> None:
    """Write the sheet.

    Args:
        path: The PNG file.
        chosen: Heading and thumbnail of each image, the first to label first; those after :data:`SHOWN` are left out.
        title: Above everything.
    """
    panels = []
    for heading, pictures in chosen[:SHOWN]:
        for number, packed in enumerate(pictures):
            panels.append(("" if number else heading, np.asarray(Image.open(io.BytesIO(packed)))))
    write_sheet(path, panels, title=title, columns=6)
