"""PNG and JPEG slices: one grey channel, or a clear reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nnunet_covid.raw_dataset.problems import UnusableFile

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_UNREADABLE = "not a readable picture ({error}); download or export it again"


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from the header alone.

    Raises:
        UnusableFile: If the file is no picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError) as e:
        raise UnusableFile(path, _UNREADABLE.format(error=type(e).__name__)) from e


def read_colours(path: Path) -> NDArray[np.uint8]:
    """A picture as RGBA, shape (y, x, 4); palettes are looked up, opaque alpha is filled in.

    Raises:
        UnusableFile: If the file cannot be decoded or holds more than 8 bits per channel.
    """
    with _opened(path) as picture:
        return np.asarray(picture.convert("RGBA"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                reason = f"{picture.mode} pixels, expected 8 bits per channel; export it as 8 bit"
                raise UnusableFile(path, reason)
            yield picture
    except (UnidentifiedImageError, OSError) as e:
        raise UnusableFile(path, _UNREADABLE.format(error=type(e).__name__)) from e


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The one grey channel of a picture, shape (y, x).

    RGB and RGBA are accepted when they are grey all the same: equal colour channels and an opaque alpha.

    Raises:
        UnusableFile: If the picture is coloured, transparent or unreadable.
    """
    with _opened(path) as picture:
        if picture.mode == "L":
            return np.asarray(picture)
        pixels = np.asarray(picture.convert("RGBA"))
    if (pixels[..., 3] != 255).any():
        raise UnusableFile(path, "is partly transparent; export it as a grey picture without alpha channel")
    differing = (pixels[..., :1] != pixels[..., 1:3]).any(axis=-1)
    if differing.any():
        reason = (
            f"red, green and blue differ in {int(differing.sum())} pixels, expected a grey picture; "
            "export it with one grey channel"
        )
        raise UnusableFile(path, reason)
    return np.ascontiguousarray(pixels[..., 0])
