"""A user's own folder: formats, pairing, labels, patients, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import blob, grey, hounsfield, read_array, write_dicom_series, write_picture, write_volume

from nnunet_covid.cli import main
from nnunet_covid.dataset_conversion import folder
from nnunet_covid.dataset_conversion.folder_layout import FolderLayout
from nnunet_covid.errors import UserError

SHAPE = (4, 10, 12)


def test_volumes_of_every_format(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed, ending in enumerate((".nii.gz", ".nii", ".nrrd", ".mha")):
        write_volume(source / f"images/case{seed}{ending}", hounsfield(SHAPE, seed))
        write_volume(source / f"masks/case{seed}_seg.nii.gz", blob(SHAPE, seed))
    write_dicom_series(source / "images/case4/series", hounsfield(SHAPE, 4))
    write_volume(source / "masks/case4.nrrd", blob(SHAPE, 4))
    converted = folder.convert(source, output=tmp_path / "raw", name="Mine", number=700)
    assert converted.name == "Dataset700_Mine"
    for seed in range(5):
        np.testing.assert_array_equal(
            read_array(converted / f"imagesTr/case00{seed}_0000.nii.gz"), hounsfield(SHAPE, seed)
        )
        np.testing.assert_array_equal(read_array(converted / f"labelsTr/case00{seed}.nii.gz"), blob(SHAPE, seed))
    description = json.loads((converted / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"] == {"background": 0, "infection": 1}


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    for seed, name in enumerate(("ann_1", "ann_2", "bob_1")):
        write_picture(tmp_path / f"source/{name}.png", grey((20, 24), seed))
        write_picture(tmp_path / f"source/{name}_mask.png", blob((20, 24), seed, 255))
    layout = FolderLayout(patient_pattern=r"^(\w+)_")
    converted = folder.convert(tmp_path / "source", output=tmp_path / "raw", layout=layout)
    np.testing.assert_array_equal(read_array(converted / "imagesTr/ann_002_0000.png"), grey((20, 24), 1))
    np.testing.assert_array_equal(read_array(converted / "labelsTr/bob_001.png"), blob((20, 24), 2))
    splits = json.loads((converted / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in splits) == [["ann_001", "ann_002"], ["bob_001"]]


def test_numbers_that_look_like_a_suffix_are_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("a_0000", "a_0003", "b_0000")):
        write_picture(tmp_path / f"source/images/{name}.png", grey((20, 24), seed))
        write_picture(tmp_path / f"source/masks/{name}.png", blob((20, 24), seed, 255))
    converted = folder.convert(tmp_path / "source", output=tmp_path / "raw")
    for seed, name in enumerate(("a_0000", "a_0003", "b_0000")):
        np.testing.assert_array_equal(read_array(converted / f"imagesTr/{name}_0000.png"), grey((20, 24), seed))
        np.testing.assert_array_equal(read_array(converted / f"labelsTr/{name}.png"), blob((20, 24), seed))


def test_nnunets_own_names_lose_their_suffix(tmp_path: Path) -> None:
    write_volume(tmp_path / "source/imagesTr/a_0000.nii.gz", hounsfield(SHAPE, 0))
    write_volume(tmp_path / "source/labelsTr/a.nii.gz", blob(SHAPE, 0))
    converted = folder.convert(tmp_path / "source", output=tmp_path / "raw")
    assert [path.name for path in (converted / "imagesTr").iterdir()] == ["a_0000.nii.gz"]


def test_without_masks_everything_is_for_prediction(tmp_path: Path) -> None:
    write_volume(tmp_path / "source/a.nii.gz", hounsfield(SHAPE, 0))
    converted = folder.convert(tmp_path / "source", output=tmp_path / "raw")
    assert sorted(path.name for path in converted.iterdir()) == ["conversion.json", "dataset.json", "imagesTs"]


def test_several_classes_need_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_volume(source / "images/a.nii.gz", hounsfield(SHAPE, 0))
    mask = np.maximum(blob(SHAPE, 0, 3), blob(SHAPE, 1, 7))
    write_volume(source / "masks/a.nii.gz", mask)
    with pytest.raises(UserError, match="values 3, 7; name each class: --label"):
        folder.convert(source, output=tmp_path / "raw")
    labels = {"consolidation": 7, "ground_glass": 3}
    converted = folder.convert(source, output=tmp_path / "raw", labels=labels)
    np.testing.assert_array_equal(
        read_array(converted / "labelsTr/a.nii.gz"), np.select([mask == 7, mask == 3], [1, 2], 0)
    )


def test_an_image_without_mask_is_a_problem_unless_allowed(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write_picture(tmp_path / f"source/images/{name}.png", grey((20, 24), seed))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    with pytest.raises(UserError) as e:
        folder.convert(tmp_path / "source", output=tmp_path / "raw")
    assert "images/b.png: has no mask" in str(e.value)
    assert "images/c.png: has no mask" in str(e.value)
    converted = folder.convert(
        tmp_path / "source", output=tmp_path / "raw", layout=FolderLayout(missing_masks_allowed=True)
    )
    assert {p.name for p in (converted / "imagesUn").iterdir()} == {"b_0000.png", "c_0000.png"}


def test_masks_on_another_grid_are_resampled_on_request(tmp_path: Path) -> None:
    source = tmp_path / "source"
    mask = blob(SHAPE, 2)
    write_volume(source / "images/a.nii.gz", hounsfield(SHAPE, 0), spacing=(1, 1, 2), origin=(0, 0, 0))
    direction = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    write_volume(
        source / "masks/a.nii.gz", mask[:, ::-1], spacing=(1, 1, 2), origin=(0, SHAPE[1] - 1, 0), direction=direction
    )
    with pytest.raises(UserError, match="lies elsewhere in space"):
        folder.convert(source, output=tmp_path / "raw")
    converted = folder.convert(source, output=tmp_path / "raw", layout=FolderLayout(resample_masks=True))
    np.testing.assert_array_equal(read_array(converted / "labelsTr/a.nii.gz"), mask)


def test_other_labels_are_another_conversion(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_picture(source / "images/a.png", grey((20, 24), 0))
    write_picture(source / "masks/a.png", blob((20, 24), 0, 255))
    folder.convert(source, output=tmp_path / "raw")
    with pytest.raises(UserError, match="with other options"):
        folder.convert(source, output=tmp_path / "raw", labels={"lesion": 255})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--masks", "nowhere"], "nowhere is not a folder"),
        (["--label", "infection=1"], "outside the label table (255; allowed: 0, 1)"),
        (["--every", "2"], "add --slices all"),
        (["--slices", "all"], "already consists of slices"),
        (["--window", "-1250", "250"], "grey values, not Hounsfield units"),
        (["--patients", "nowhere.csv"], "nowhere.csv cannot be read as a table"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_picture(tmp_path / "source/images/a.png", grey((20, 24), 0))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    status = main(["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), *arguments])
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "raw").exists() or not any((tmp_path / "raw").iterdir())
