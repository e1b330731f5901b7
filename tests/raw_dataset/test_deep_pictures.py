"""Pictures whose channels hold more than eight bits, or signed ones: refused, whatever the colours and the format."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import grey, write_picture

from nnunet_covid.raw_dataset import UnusableFile, read_grey
from nnunet_covid.raw_dataset.pictures import read_colours

DEEP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 100 + 1
GREY_ALPHA, COLOURS, COLOURS_ALPHA = 4, 2, 6


def write_deep_png(path: Path, colour_type: int, *channels: np.ndarray) -> None:
    """A PNG of 16 bits per channel; Pillow writes grey ones alone."""
    rows = np.dstack(channels).astype(">u2")
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))]
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in [*chunks, (b"IEND", b"")]:
            stream.write(struct.pack(">I", len(content)) + kind + content)
            stream.write(struct.pack(">I", zlib.crc32(kind + content)))


@pytest.fixture
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    kind, opaque = request.param, np.full_like(DEEP, 65535)
    path = tmp_path / f"{kind}.{'tif' if 'tiff' in kind else 'png'}"
    if kind == "grey and alpha":
        write_deep_png(path, GREY_ALPHA, DEEP, opaque)
    elif kind == "colours":
        write_deep_png(path, COLOURS, DEEP, DEEP, DEEP)
    elif kind == "colours and alpha":
        write_deep_png(path, COLOURS_ALPHA, DEEP, DEEP, DEEP, opaque)
    elif kind == "tiff in colours":
        tifffile.imwrite(path, np.dstack([DEEP] * 3), photometric="rgb")
    elif kind == "packed tiff in colours":
        tifffile.imwrite(path, np.dstack([DEEP] * 3), photometric="rgb", compression="zlib")
    else:
        tifffile.imwrite(path, (DEEP // 100).astype(np.int8) - 32)
    return path


KINDS = ("grey and alpha", "colours", "colours and alpha", "tiff in colours", "packed tiff in colours", "signed tiff")


@pytest.mark.parametrize("path", KINDS, indirect=True)
def test_what_eight_bits_cannot_hold_is_refused(path: Path) -> None:
    for read in (read_grey, read_colours):
        with pytest.raises(UnusableFile, match="expected 8 bits per channel; export it as 8 bit"):
            read(path)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_eight_bits_in_three_equal_channels_are_grey(tmp_path: Path, ending: str) -> None:
    pixels = grey((8, 8), 0)
    write_picture(tmp_path / f"a.{ending}", np.dstack([pixels] * 3))
    np.testing.assert_array_equal(read_grey(tmp_path / f"a.{ending}"), pixels)
