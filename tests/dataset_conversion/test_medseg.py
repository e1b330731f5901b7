"""Data sets 503 and 504 on miniatures, every voxel compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import blob, hounsfield, read_array, write_volume

from nnunet_covid.dataset_conversion import Dataset503_MedSeg100, Dataset504_MedSeg9
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, SliceSelection, convert_dataset


def stack(root: Path, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).normal(-500, 300, (count, 20, 24)).astype(np.float32)
    masks = np.stack([np.maximum(blob((20, 24), i, 1 + i % 3), blob((20, 24), i + 30, 3)) for i in range(count)])
    write_volume(root / "tr_im.nii.gz", images)
    write_volume(root / "tr_mask.nii.gz", masks.astype(np.float32))
    return images, masks


def test_every_slice_of_a_stack_becomes_a_case(tmp_path: Path) -> None:
    images, masks = stack(tmp_path / "source")
    write_volume(tmp_path / "source/val_im.nii.gz", images[:2])
    folder = convert_dataset(Dataset503_MedSeg100.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    for i in range(len(images)):
        np.testing.assert_array_equal(read_array(folder / f"imagesTr/medseg100_{i:03d}_0000.nii.gz"), images[i])
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/medseg100_{i:03d}.nii.gz"), masks[i])
    np.testing.assert_array_equal(read_array(folder / "imagesTs/medseg100_val_001_0000.nii.gz"), images[1])
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "grey_ct"}, "the values are no true Hounsfield units"
    assert description["labels"]["pleural_effusion"] == 3


@pytest.mark.parametrize(("classes", "table"), [("infection", [0, 1, 1, 0]), ("regions", [0, 1, 2, 0])])
def test_effusion_is_no_infection(tmp_path: Path, classes: str, table: list[int]) -> None:
    _, masks = stack(tmp_path / "source")
    folder = convert_dataset(
        Dataset503_MedSeg100.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=Options(classes=classes)
    )
    for i, mask in enumerate(masks):
        found = read_array(folder / f"labelsTr/medseg100_{i:03d}.nii.gz")
        np.testing.assert_array_equal(found, np.array(table)[mask])


def test_a_value_outside_the_table_is_refused(tmp_path: Path) -> None:
    _, masks = stack(tmp_path / "source")
    masks[2, 0, 0] = 4
    write_volume(tmp_path / "source/tr_mask.nii.gz", masks)
    with pytest.raises(UserError, match=r"tr_mask\.nii\.gz: mask holds 1 values outside the label table \(4;"):
        convert_dataset(Dataset503_MedSeg100.RECIPE, tmp_path / "source", output=tmp_path / "raw")


def test_a_single_slice_is_no_stack(tmp_path: Path) -> None:
    for name in ("im", "mask"):
        image = sitk.GetImageFromArray(np.zeros((20, 24), dtype=np.float32))
        sitk.WriteImage(image, str(tmp_path / f"tr_{name}.nii"))
    with pytest.raises(UserError, match=r"tr_im\.nii: is a single slice, expected is a stack"):
        convert_dataset(Dataset503_MedSeg100.RECIPE, tmp_path, output=tmp_path / "raw")


def volumes(root: Path) -> dict[str, dict[str, np.ndarray]]:
    """Two volumes whose lungs lie off the centre."""
    written = {}
    for number in (1, 2):
        shape = (6, 63, 63)
        lungs = np.zeros(shape, dtype=np.uint8)
        lungs[1:5, 10:31, 36 : 51 + number] = 1
        label = np.zeros(shape, dtype=np.uint8)
        label[2, 15:20, 40:45] = 1
        label[3, 15:20, 40:45] = 2
        image = hounsfield(shape, number)
        write_volume(root / f"rp_im/{number}.nii.gz", image)
        write_volume(root / f"rp_msk/{number}.nii.gz", label)
        write_volume(root / f"rp_lung_msk/{number}.nii.gz", lungs)
        written[f"medseg9_00{number}"] = {"image": image, "label": label, "lungs": lungs}
    return written


def test_volumes_arrive_with_geometry(tmp_path: Path) -> None:
    written = volumes(tmp_path / "source")
    folder = convert_dataset(Dataset504_MedSeg9.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    for name, arrays in written.items():
        image = sitk.ReadImage(str(folder / f"imagesTr/{name}_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), arrays["image"])
        np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.7, 2.5), rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), (-10, 20, -30), rtol=1e-6)
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/{name}.nii.gz"), arrays["label"])


def test_the_papers_preprocessing(tmp_path: Path) -> None:
    """Window, crop around the lungs' centre of gravity, slices with lesions, lung mask as a second channel."""
    written = volumes(tmp_path / "source")
    options = Options(
        window=(-1250, 250), crop=(32, 30), lung_mask_channel=True, slices=SliceSelection(only_with_lesion=True)
    )
    folder = convert_dataset(Dataset504_MedSeg9.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=options)
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {
        f"medseg9_00{n}_00{z}.nii.gz" for n in (1, 2) for z in (2, 3)
    }
    for name, arrays in written.items():
        # centre of gravity: y (10 + 30) / 2 = 20, x (36 + last) / 2; 32 rows from 20 - 15.5, 30 columns, inside 63
        x = (36 + (51 if name.endswith("1") else 52)) / 2
        rows, columns = slice(4, 36), slice(round(x - 14.5), round(x - 14.5) + 30)
        windowed = np.rint((arrays["image"].astype(np.float64).clip(-1250, 250) + 1250) / 1500 * 255)
        for z in (2, 3):
            stem = f"{name}_{z:03d}"
            np.testing.assert_array_equal(
                read_array(folder / f"imagesTr/{stem}_0000.nii.gz"), windowed[z, rows, columns]
            )
            np.testing.assert_array_equal(
                read_array(folder / f"imagesTr/{stem}_0001.nii.gz"), arrays["lungs"][z, rows, columns]
            )
            np.testing.assert_array_equal(
                read_array(folder / f"labelsTr/{stem}.nii.gz"), arrays["label"][z, rows, columns]
            )
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "grey_ct", "1": "nonorm"}
    assert description["numTraining"] == 4
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert {n[:11] for n in fold["train"]}.isdisjoint({n[:11] for n in fold["val"]})
