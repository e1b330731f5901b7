"""Data sets 506, 507, 520 and 522: pairing by the original file names, every voxel compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import blob, hounsfield, read_array, write_volume

from nnunet_covid.dataset_conversion import (
    Dataset506_COVID19_20,
    Dataset507_MosMed,
    Dataset520_MSDLung,
    Dataset522_LiTS,
)
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, convert_dataset

SHAPE = (3, 11, 13)


def volume(path: Path, seed: int) -> np.ndarray:
    write_volume(path, hounsfield(SHAPE, seed))
    return hounsfield(SHAPE, seed)


def mask(path: Path, seed: int, value: int = 1) -> np.ndarray:
    write_volume(path, blob(SHAPE, seed, value))
    return blob(SHAPE, seed, value)


def assert_arrays(folder: Path, expected: dict[str, np.ndarray]) -> None:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz")}
    assert found == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(read_array(folder / name), array, err_msg=name)


def test_506_takes_unlabelled_folders_for_testing(tmp_path: Path) -> None:
    train, validation = tmp_path / "source/COVID-19-20_v2/Train", tmp_path / "source/COVID-19-20_v2/Validation"
    expected = {}
    for seed, number in enumerate(("0003", "0011")):
        expected[f"imagesTr/covid1920_{number}_0000.nii.gz"] = volume(
            train / f"volume-covid19-A-{number}_ct.nii.gz", seed
        )
        expected[f"labelsTr/covid1920_{number}.nii.gz"] = mask(train / f"volume-covid19-A-{number}_seg.nii.gz", seed)
    expected["imagesTs/covid1920_0001_0000.nii.gz"] = volume(validation / "volume-covid19-A-0001_ct.nii.gz", 9)
    folder = convert_dataset(Dataset506_COVID19_20.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert_arrays(folder, expected)
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "CT"}


def test_506_misses_a_mask(tmp_path: Path) -> None:
    volume(tmp_path / "source/Train/volume-covid19-A-0003_ct.nii.gz", 0)
    mask(tmp_path / "source/Train/volume-covid19-A-0003_seg.nii.gz", 0)
    volume(tmp_path / "source/Train/volume-covid19-A-0011_ct.nii.gz", 1)
    with pytest.raises(UserError, match=r"0011_ct\.nii\.gz: has no mask; add volume-covid19-A-0011_seg\.nii\.gz"):
        convert_dataset(Dataset506_COVID19_20.RECIPE, tmp_path / "source", output=tmp_path / "raw")


def test_507_pairs_studies_with_masks_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "source"
    expected = {
        "imagesTr/mosmed_0255_0000.nii.gz": volume(root / "studies/CT-1/study_0255.nii.gz", 0),
        "labelsTr/mosmed_0255.nii.gz": mask(root / "masks/study_0255_mask.nii.gz", 0),
        "imagesUn/mosmed_0001_0000.nii.gz": volume(root / "studies/CT-0/study_0001.nii.gz", 1),
    }
    folder = convert_dataset(Dataset507_MosMed.RECIPE, root, output=tmp_path / "raw")
    assert_arrays(folder, expected)
    without = convert_dataset(
        Dataset507_MosMed.RECIPE, root, output=tmp_path / "without", options=Options(unlabelled=False)
    )
    assert_arrays(without, {name: a for name, a in expected.items() if "imagesUn" not in name})


def test_520_passes_over_the_hidden_files_of_its_archive(tmp_path: Path) -> None:
    root = tmp_path / "source/Task06_Lung"
    expected = {
        "imagesTr/msd_lung_001_0000.nii.gz": volume(root / "imagesTr/lung_001.nii.gz", 0),
        "labelsTr/msd_lung_001.nii.gz": mask(root / "labelsTr/lung_001.nii.gz", 0),
        "imagesTs/msd_lung_002_0000.nii.gz": volume(root / "imagesTs/lung_002.nii.gz", 1),
    }
    (root / "imagesTr/._lung_001.nii.gz").write_bytes(b"Mac OS X")
    folder = convert_dataset(Dataset520_MSDLung.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert_arrays(folder, expected)


def lits(root: Path) -> dict[str, np.ndarray]:
    expected = {}
    for batch, number in ((1, 2), (2, 30)):
        name = f"lits_{number:03d}"
        expected[f"imagesTr/{name}_0000.nii.gz"] = volume(root / f"Training Batch {batch}/volume-{number}.nii", number)
        label = np.maximum(blob(SHAPE, number, 1), blob(SHAPE, number + 1, 2))
        write_volume(root / f"Training Batch {batch}/segmentation-{number}.nii", label)
        expected[f"labelsTr/{name}.nii.gz"] = label
    expected["imagesTs/lits_test_005_0000.nii.gz"] = volume(root / "test/test-volume-5.nii", 5)
    return expected


@pytest.mark.parametrize(
    ("classes", "table"), [("exclusive", [0, 1, 2]), ("regions", [0, 1, 2]), ("tumour", [0, 0, 1])]
)
def test_522_joins_its_batches(tmp_path: Path, classes: str, table: list[int]) -> None:
    expected = lits(tmp_path / "source")
    folder = convert_dataset(
        Dataset522_LiTS.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=Options(classes=classes)
    )
    assert_arrays(folder, {n: np.array(table)[a] if "labels" in n else a for n, a in expected.items()})


def test_522_names_every_file_without_partner(tmp_path: Path) -> None:
    lits(tmp_path / "source")
    (tmp_path / "source/Training Batch 1/segmentation-2.nii").unlink()
    (tmp_path / "source/Training Batch 2/volume-30.nii").unlink()
    with pytest.raises(UserError) as e:
        convert_dataset(Dataset522_LiTS.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert "volume-2.nii: has no mask" in str(e.value)
    assert "segmentation-30.nii: is a mask without a volume" in str(e.value)


def test_522_takes_masks_with_a_blank_header_to_lie_on_their_volume(tmp_path: Path) -> None:
    expected = lits(tmp_path / "source")
    blank = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}
    path = next((tmp_path / "source").rglob("segmentation-*.nii*"))
    write_volume(path, read_array(path), **blank)
    said: list[str] = []
    folder = convert_dataset(Dataset522_LiTS.RECIPE, tmp_path / "source", output=tmp_path / "raw", tell=said.append)
    assert_arrays(folder, expected)
    case = f"lits_{int(path.name.split('-')[1].split('.')[0]):03d}"
    grids = [sitk.ReadImage(str(folder / file)) for file in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")]
    assert grids[0].GetSpacing() == grids[1].GetSpacing() != (1.0, 1.0, 1.0)
    assert grids[0].GetOrigin() == grids[1].GetOrigin()
    assert f"note: the masks of {case} have a blank header and were taken to lie on their image's grid" in said


def test_522_may_show_no_lungs(tmp_path: Path) -> None:
    lits(tmp_path / "source")
    said: list[str] = []
    options = Options(lung_mask_channel=True, lung_method="threshold")
    recipe = Dataset522_LiTS.RECIPE
    convert_dataset(recipe, tmp_path / "source", output=tmp_path / "raw", options=options, tell=said.append)
    assert any(line.startswith("note: no lungs were found in lits_") for line in said)
