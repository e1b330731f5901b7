"""Masks that reach beyond their image, resampled: what is cut off is said, and too much of it refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import hounsfield, read_array, write_volume

from nnunet_covid.dataset_conversion.folder import FolderLayout, convert_folder
from nnunet_covid.errors import UserError

SHAPE = (10, 20, 24)
SPACING = (0.8, 0.7, 2.5)
ORIGIN = (-10.0, 20.0, -30.0)


def converted(folder: Path, low: float, said: list[str], thickness: float = 2.5, marked: slice = slice(None)) -> Path:
    """A conversion of an image and a mask whose ten slices begin so many millimetres below the image."""
    write_volume(folder / "source/images/a.nii.gz", hounsfield(SHAPE, 0), spacing=SPACING, origin=ORIGIN)
    mask = np.zeros(SHAPE, np.uint8)
    mask[marked, 5:15, 5:15] = 1
    grid = {"spacing": (*SPACING[:2], thickness), "origin": (*ORIGIN[:2], ORIGIN[2] - low)}
    write_volume(folder / "source/masks/a.nii.gz", mask, **grid)
    layout = FolderLayout(resample_masks=True)
    return convert_folder(folder / "source", output=folder / "raw", layout=layout, tell=said.append)


@pytest.mark.parametrize("slices", [0, 1, 3])
def test_what_lies_outside_is_noted(tmp_path: Path, slices: int) -> None:
    said: list[str] = []
    folder = converted(tmp_path, 2.5 * slices + 0.1, said)
    assert read_array(folder / "labelsTr/a.nii.gz").sum() == 100 * (10 - slices)
    noted = [line for line in said if "cut off" in line]
    share = f"up to {slices}0% of what they mark lies outside their image"
    assert noted == ([f"note: the masks of a were cut off: {share}"] if slices else [])
    (record,) = json.loads((folder / "conversion.json").read_text())["cases"]
    assert record["notes"].get("cut_off", 0) == slices / 10


def test_a_mask_that_lies_outside_by_more_than_half_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"masks/a\.nii\.gz: 60% of what it marks lies outside its image; check that"):
        converted(tmp_path, 15, [])


def test_a_thin_lesion_that_resampling_alone_shrinks_is_not_noted(tmp_path: Path) -> None:
    said: list[str] = []
    folder = converted(tmp_path, 0, said, thickness=0.9, marked=slice(2, 4))
    assert read_array(folder / "labelsTr/a.nii.gz").sum() == 100
    assert not any("cut off" in line for line in said)
