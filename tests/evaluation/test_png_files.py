"""Fast reading of grey PNG files: the same greys as Pillow's, and what is left to Pillow."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nnunet_covid.evaluation.png_files import grey_png_shape, read_grey_png

GREYS = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"dpi": (72, 72)}])
@pytest.mark.parametrize("image", [GREYS, GREYS // 100, np.cumsum(GREYS // 250, axis=1).astype(np.uint8)])
def test_greys_are_those_that_pillow_reads(tmp_path, image, options):
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path, **options)
    np.testing.assert_array_equal(read_grey_png(path), image)
    assert grey_png_shape(path) == image.shape


def test_a_stored_gamma_does_not_change_the_greys(tmp_path):
    path = tmp_path / "a.png"
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (22727).to_bytes(4, "big"))
    Image.fromarray(GREYS).save(path, pnginfo=chunks)
    assert b"gAMA" in path.read_bytes()
    np.testing.assert_array_equal(read_grey_png(path), GREYS)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_other_kinds_are_left_to_the_caller(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).convert(mode).save(path)
    assert read_grey_png(path) is None
    assert grey_png_shape(path) is None


def test_a_grey_declared_transparent_is_no_second_channel(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).save(path, transparency=0)
    found = read_grey_png(path)
    assert found is None or np.array_equal(found, GREYS)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_files_without_a_header_are_left_to_the_caller(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert read_grey_png(path) is None
    assert grey_png_shape(path) is None


def test_a_truncated_file_is_left_to_the_caller(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert read_grey_png(path) is None
