"""A user's own folder: what is not labelled, and values of masks that are nearly whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from image_files import blob, grey, hounsfield, read_array, write_picture, write_volume

from nnunet_covid.dataset_conversion.folder import convert_folder
from nnunet_covid.raw_dataset import Options, SliceSelection

SHAPE = (4, 10, 12)


def test_ignore_is_the_last_label_as_nnunet_wants_it(tmp_path: Path) -> None:
    write_picture(tmp_path / "source/images/a.png", grey((20, 24), 0))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw", labels={"ignore": 254, "lesion": 255})
    assert json.loads((converted / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
    assert set(np.unique(read_array(converted / "labelsTr/a.png"))) == {0, 1}


def test_nearly_whole_values_are_rounded_and_minus_one_may_be_what_is_not_labelled(tmp_path: Path) -> None:
    mask = blob((6, 20, 30), 0).astype(np.float32) * np.float32(0.99998)
    mask[0] = -1
    write_volume(tmp_path / "source/images/a.nii.gz", hounsfield((6, 20, 30), 0))
    write_volume(tmp_path / "source/masks/a.nii.gz", mask)
    folder = convert_folder(tmp_path / "source", labels={"lesion": 1, "ignore": -1}, output=tmp_path / "raw")
    expected = np.rint(mask)
    expected[0] = 2
    np.testing.assert_array_equal(read_array(folder / "labelsTr/a.nii.gz"), expected)


def test_what_is_not_labelled_marks_nothing(tmp_path: Path) -> None:
    for name in "ab":
        mask = blob(SHAPE, 0) if name == "a" else np.zeros(SHAPE, np.uint8)
        mask[:, 0] = 255
        write_volume(tmp_path / f"source/images/{name}.nii.gz", hounsfield(SHAPE, 0))
        write_volume(tmp_path / f"source/masks/{name}.nii.gz", mask)
    labels, said = {"lesion": 1, "ignore": 255}, []
    convert_folder(tmp_path / "source", labels=labels, output=tmp_path / "raw", tell=said.append)
    assert "note: the masks of b mark nothing" in said
    assert [line for line in said if "HU inside" in line and not line.endswith("inside label 1")] == []
    options = Options(slices=SliceSelection(only_with_lesion=True))
    folder = convert_folder(tmp_path / "source", labels=labels, output=tmp_path / "slices", options=options)
    with_lesion = [f"a_{z:03d}.nii.gz" for z in range(SHAPE[0]) if (blob(SHAPE, 0)[z, 1:] == 1).any()]
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == with_lesion
