"""Label maps and images beside each other, as nnU-Net finds them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_covid.nnunet.written_images import copy_image, write_channel, write_labels

LABELS = np.ones((3, 4, 5), np.uint8)
SPACINGS = {"lung_0001": [5.0, 0.7, 0.7], "lung_0002": [1.25, 0.7, 0.7], "lung": [2.0, 0.7, 0.7]}


def test_label_maps_in_3d_tiff_have_their_own_spacing_whatever_their_names(tmp_path: Path) -> None:
    (tmp_path / "copied").mkdir()
    for case, spacing in SPACINGS.items():
        write_labels(tmp_path / f"{case}.tif", LABELS, {"spacing": spacing}, Tiff3DIO())
        copy_image(tmp_path / f"{case}.tif", tmp_path / "copied" / f"{case}.tif", image=False)
    for case, spacing in SPACINGS.items():
        for folder in (tmp_path, tmp_path / "copied"):
            assert Tiff3DIO().read_seg(str(folder / f"{case}.tif"))[1]["spacing"] == spacing


def test_a_channel_in_3d_tiff_has_the_spacing_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "copied").mkdir()
    for case, spacing in SPACINGS.items():
        channel = f"{case}_0000.tif"
        write_channel(tmp_path / channel, LABELS, {"spacing": spacing}, Tiff3DIO(), image=True)
        copy_image(tmp_path / channel, tmp_path / "copied" / channel)
    for case, spacing in SPACINGS.items():
        for folder in (tmp_path, tmp_path / "copied"):
            assert Tiff3DIO().read_images([str(folder / f"{case}_0000.tif")])[1]["spacing"] == spacing
