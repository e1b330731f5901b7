"""What images are called: the endings of volumes and pictures, longer ones first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SINGLE_FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
VOLUME_ENDINGS = (*SINGLE_FILE_ENDINGS, ".mhd", ".nhdr", ".hdr")
JPEG_ENDINGS = (".jpg", ".jpeg")
PICTURE_ENDINGS = (".png", *JPEG_ENDINGS, ".bmp", ".tif", ".tiff")
IMAGE_ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)


def ending_of(path: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> str | None:
    """Which of the endings the file name has, in any case."""
    name = path.name.lower()
    return next((ending for ending in endings if name.endswith(ending)), None)
