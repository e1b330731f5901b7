"""8-bit grey PNG files, decoded about twice as fast as by Pillow.

Any file that is not of the plainest kind, or that the fast decoder refuses, is left to the caller: both functions
answer None for it and raise nothing but ``OSError`` of the file system.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 29  # signature, length and name of the first chunk, and its 13 bytes
# Bit depth 8, colour type 0 (grey), the only compression and filter method there is, not interlaced (PNG
# specification, §11.2.1).
PLAIN_GREY = bytes([8, 0, 0, 0, 0])


def grey_png_shape(path: Path) -> tuple[int, int] | None:
    """(rows, columns) of a plain grey PNG, from its first bytes; None for every other file."""
    with path.open("rb", buffering=0) as stream:
        return _shape(stream.read(HEADER_BYTES))


def read_grey_png(path: Path) -> NDArray[np.uint8] | None:
    """The greys of a plain grey PNG, shape (rows, columns); None for every other file."""
    content = path.read_bytes()
    shape = _shape(content[:HEADER_BYTES])
    if shape is None:
        return None
    try:
        image = imagecodecs.png_decode(content)
    except Exception:  # a damaged file, whose fault the caller's own decoder names
        return None
    # A chunk that makes one grey transparent adds a channel here.
    return cast("NDArray[np.uint8]", image) if image.shape == shape and image.dtype == np.uint8 else None


def _shape(head: bytes) -> tuple[int, int] | None:
    plain = head[:8] == SIGNATURE and head[12:16] == b"IHDR" and head[24:HEADER_BYTES] == PLAIN_GREY
    if not plain:
        return None
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
