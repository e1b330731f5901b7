"""Units and the direction of a grey scale are decided image by image, and compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chest_phantom import chest_slice, chest_volume
from image_files import grey, hounsfield, write_picture, write_volume

from nnunet_covid.cli import main
from nnunet_covid.raw_dataset.grey_scale import GreyScale, grey_scale_of, is_inverted, odd_ones
from nnunet_covid.raw_dataset.scan import to_8_bit

WHOLE = to_8_bit(chest_slice()[0], -1250, 250)
VOLUME = chest_volume(8, 64)[0]
LUNG_BOX = WHOLE[28:88, 14:114]


@pytest.mark.parametrize(
    ("image", "inverted"),
    [
        (WHOLE, False),
        (255 - WHOLE, True),
        (1 - WHOLE.astype(np.float32) / 255, True),
        (to_8_bit(VOLUME, -1250, 250), False),
        (255 - to_8_bit(VOLUME, -1250, 250), True),
        (LUNG_BOX, False),
        (255 - LUNG_BOX, False),
        (np.zeros((20, 20)), False),
        (grey((64, 64), 0), False),
    ],
)
def test_a_whole_body_on_which_air_is_bright(image: np.ndarray, inverted: bool) -> None:
    """Of a picture cut to the lungs nothing is said."""
    assert is_inverted(image) is inverted


def test_the_scale_of_one_image() -> None:
    assert grey_scale_of(VOLUME, is_hu=True) is GreyScale.HOUNSFIELD
    assert grey_scale_of(VOLUME + 1024, is_hu=True) is GreyScale.GREY
    assert grey_scale_of(WHOLE, is_hu=False) is GreyScale.GREY
    assert grey_scale_of(255 - WHOLE, is_hu=False) is GreyScale.INVERTED


def test_the_odd_ones_are_those_unlike_most() -> None:
    assert odd_ones({}) is None
    assert odd_ones(dict.fromkeys("abc", GreyScale.GREY)) is None
    found = odd_ones({**dict.fromkeys("abcd", GreyScale.GREY), "e": GreyScale.HOUNSFIELD, "f": GreyScale.INVERTED})
    assert found is not None
    assert sorted(found[0]) == ["e", "f"]
    assert "Hounsfield units in e and inverted grey values in f, but grey values in the other images" in found[1]


@pytest.mark.parametrize(("shift", "channel"), [(0, "CT"), (1024, "grey_ct")])
def test_a_folder_of_one_unit_is_named_after_it(tmp_path: Path, shift: int, channel: str) -> None:
    for seed in range(2):
        write_volume(tmp_path / f"source/images/{seed}.nii", hounsfield((4, 8, 8), seed) + np.int16(shift))
    arguments = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main(arguments) == 0
    folder = tmp_path / "raw/Dataset599_Folder"
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": channel}
    cases = json.loads((folder / "conversion.json").read_text())["cases"]
    values = {GreyScale.HOUNSFIELD.value if channel == "CT" else GreyScale.GREY.value}
    assert {case["notes"]["values"] for case in cases} == values


def test_an_empty_lung_mask_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(tmp_path / "a.nii.gz", (VOLUME + 1024).clip(-976).astype(np.int16) - 300)
    assert main(["lung-mask", str(tmp_path / "a.nii.gz"), str(tmp_path / "m.nii.gz"), "--method", "threshold"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"warning: {tmp_path}/a.nii.gz: no lungs are found, the mask is empty; it holds")


def test_slices_without_lungs_are_converted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "source/images/a.png", WHOLE)
    write_picture(tmp_path / "source/images/b.png", np.full((64, 64), 200, np.uint8))
    arguments = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main([*arguments, "--lung-mask-channel", "--lung-method", "threshold"]) == 0
    assert "note: no lungs were found in b; look at these cases" in capsys.readouterr().out
