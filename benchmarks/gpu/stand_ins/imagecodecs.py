"""Stand-in for imagecodecs, 25 MiB of a pack that needs little of it: PNG by pillow, blocks in memory by zlib."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image


def png_decode(content: bytes) -> np.ndarray:
    """Pixels as they are stored."""
    return np.asarray(Image.open(io.BytesIO(content)))


def lz4_encode(content: Any) -> bytes:
    """Any block that ``lz4_decode`` below can read."""
    return zlib.compress(bytes(content), level=1)


def lz4_decode(block: bytes, out: Any) -> None:
    """The bytes of ``lz4_encode`` above, into ``out``."""
    out[:] = np.frombuffer(zlib.decompress(block), dtype=np.uint8)
