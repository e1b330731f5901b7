"""What many bad inputs begin with: something good, made once and copied."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from image_files import blob, grey, hounsfield, write_picture, write_volume

Make = Callable[[Path], object]


def spoilt(good: Make, spoil: Make) -> Make:
    """Something good in the folder, and then what makes it bad."""

    def make(folder: Path) -> None:
        shutil.copytree(_built(good), folder, dirs_exist_ok=True)
        spoil(folder)

    return make


def several(*steps: Make) -> Make:
    """One after the other."""

    def make(folder: Path) -> None:
        for step in steps:
            step(folder)

    return make


@cache
def _built(good: Make) -> Path:
    kept = tempfile.TemporaryDirectory(prefix="good_input_")
    _KEPT.append(kept)
    good(Path(kept.name))
    return Path(kept.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""


def pictures(folder: Path) -> None:
    """``source/images`` and ``source/masks``: slices a and b of 30×20 pixels with masks of 0 and 255."""
    for seed, name in enumerate("ab"):
        write_picture(folder / f"source/images/{name}.png", grey((20, 30), seed))
        write_picture(folder / f"source/masks/{name}.png", blob((20, 30), seed, 255))


def volumes(folder: Path, size: tuple[int, int, int] = (6, 20, 30)) -> None:
    """``source/images`` and ``source/masks``: volumes a and b in Hounsfield units with masks of 0 and 1."""
    for seed, name in enumerate("ab"):
        write_volume(folder / f"source/images/{name}.nii.gz", hounsfield(size, seed))
        write_volume(folder / f"source/masks/{name}.nii.gz", blob(size, seed))
