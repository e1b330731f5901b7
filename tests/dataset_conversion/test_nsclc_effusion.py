"""Data sets 521 and 530: DICOM series, masks stored flipped against them, the union of several sources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import blob, hounsfield, read_array, write_dicom_series, write_volume

from nnunet_covid.dataset_conversion import Dataset521_NSCLCEffusion, Dataset530_NonCOVIDLesions
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, SliceSelection, convert_dataset

SHAPE = (5, 12, 14)
SPACING = (0.8, 0.7, 2.5)
ORIGIN = (-10.0, 20.0, -30.0)
FLIPPED_Y = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def effusion_case(root: Path, patient: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A series with fluid in a blob, and its mask stored with the second axis reversed."""
    mask = blob(SHAPE, seed)
    image = np.where(mask == 1, 12, -800).astype(np.int16)
    image[0, 0, 0] = seed  # tells the cases apart
    write_dicom_series(
        root / f"NSCLC/{patient}/study/series", image, spacing=SPACING, origin=ORIGIN, series=f"1.2.{seed}"
    )
    last_row = ORIGIN[1] + (SHAPE[1] - 1) * SPACING[1]
    write_volume(
        root / f"masks/{patient}/{patient}_effusion_first_reviewer.nii.gz",
        mask[:, ::-1],
        spacing=SPACING,
        origin=(ORIGIN[0], last_row, ORIGIN[2]),
        direction=FLIPPED_Y,
    )
    return image, mask


def test_flipped_masks_are_resolved_in_space(tmp_path: Path) -> None:
    written = {p: effusion_case(tmp_path / "source", p, seed) for seed, p in enumerate(("LUNG1-005", "LUNG1-016"), 3)}
    lines: list[str] = []
    folder = convert_dataset(
        Dataset521_NSCLCEffusion.RECIPE, tmp_path / "source", output=tmp_path / "raw", tell=lines.append
    )
    for patient, (image, mask) in written.items():
        converted = sitk.ReadImage(str(folder / f"imagesTr/nsclc_{patient}_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(converted), image)
        np.testing.assert_allclose(converted.GetSpacing(), SPACING, rtol=1e-5)
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/nsclc_{patient}.nii.gz"), mask)
        assert f"nsclc_{patient}: mean 12 HU inside label 1" in lines


def test_slices_keep_their_patient(tmp_path: Path) -> None:
    image, mask = effusion_case(tmp_path / "source", "LUNG1-005", 3)
    effusion_case(tmp_path / "source", "LUNG1-016", 4)
    options = Options(slices=SliceSelection(only_with_lesion=True))
    folder = convert_dataset(
        Dataset521_NSCLCEffusion.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=options
    )
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        converted = sitk.ReadImage(str(folder / f"imagesTr/nsclc_LUNG1-005_{z:03d}_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(converted), image[z])
        np.testing.assert_allclose(converted.GetSpacing(), SPACING[:2], rtol=1e-5)
    fold = json.loads((folder / "splits_final.json").read_text())[0]
    assert {name[:15] for name in fold["train"]}.isdisjoint({name[:15] for name in fold["val"]})


def test_a_mask_that_lies_on_air_is_refused(tmp_path: Path) -> None:
    effusion_case(tmp_path / "source", "LUNG1-005", 3)
    write_volume(
        tmp_path / "source/masks/LUNG1-005/LUNG1-005_effusion_first_reviewer.nii.gz",
        blob(SHAPE, 3)[:, ::-1],
        spacing=SPACING,
        origin=ORIGIN,
    )
    with pytest.raises(UserError, match="HU inside the mask is not that of fluid"):
        convert_dataset(Dataset521_NSCLCEffusion.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert not any((tmp_path / "raw").iterdir())


def test_structure_sets_beside_the_ct_do_not_count(tmp_path: Path) -> None:
    effusion_case(tmp_path / "source", "LUNG1-005", 3)
    other = tmp_path / "source/NSCLC/LUNG1-005/study/contours"
    write_dicom_series(other, hounsfield((1, 8, 8), 0), modality="RTSTRUCT", series="1.9")
    assert convert_dataset(Dataset521_NSCLCEffusion.RECIPE, tmp_path / "source", output=tmp_path / "raw").is_dir()


def test_a_mask_without_series_is_refused(tmp_path: Path) -> None:
    effusion_case(tmp_path / "source", "LUNG1-005", 3)
    write_volume(tmp_path / "source/masks/LUNG1-028_effusion_first_reviewer.nii.gz", blob(SHAPE, 1))
    with pytest.raises(UserError, match="no CT series in a folder named LUNG1-028"):
        convert_dataset(Dataset521_NSCLCEffusion.RECIPE, tmp_path / "source", output=tmp_path / "raw")


def test_the_union_takes_whatever_is_there(tmp_path: Path) -> None:
    root = tmp_path / "source"
    image, mask = effusion_case(root, "LUNG1-005", 3)
    write_volume(root / "Task06_Lung/imagesTr/lung_001.nii.gz", hounsfield(SHAPE, 1))
    write_volume(root / "Task06_Lung/labelsTr/lung_001.nii.gz", blob(SHAPE, 1))
    write_volume(root / "Task06_Lung/imagesTs/lung_002.nii.gz", hounsfield(SHAPE, 2))
    only_two = convert_dataset(Dataset530_NonCOVIDLesions.RECIPE, root, output=tmp_path / "two")
    assert {path.name for path in (only_two / "labelsTr").iterdir()} == {
        "msd_lung_001.nii.gz",
        "nsclc_LUNG1-005.nii.gz",
    }
    assert not (only_two / "imagesTs").exists()
    liver_and_tumour = np.maximum(blob(SHAPE, 5, 1), blob(SHAPE, 6, 2))
    write_volume(root / "LiTS/volume-3.nii", hounsfield(SHAPE, 3))
    write_volume(root / "LiTS/segmentation-3.nii", liver_and_tumour)
    all_three = convert_dataset(Dataset530_NonCOVIDLesions.RECIPE, root, output=tmp_path / "three")
    np.testing.assert_array_equal(read_array(all_three / "labelsTr/lits_003.nii.gz"), liver_and_tumour == 2)
    np.testing.assert_array_equal(read_array(all_three / "labelsTr/nsclc_LUNG1-005.nii.gz"), mask)
    np.testing.assert_array_equal(read_array(all_three / "imagesTr/nsclc_LUNG1-005_0000.nii.gz"), image)


@pytest.mark.parametrize("lungs", [False, True])
def test_the_union_takes_of_each_member_what_the_member_takes(tmp_path: Path, lungs: bool) -> None:
    """LiTS's masks with a blank header, and its volumes without lungs; not a lung tumour's."""
    root = tmp_path / "source"
    write_volume(root / "LiTS/volume-3.nii", np.where(hounsfield(SHAPE, 3) < 0, -900, 40).astype(np.int16))
    write_volume(root / "LiTS/segmentation-3.nii", blob(SHAPE, 6, 2), spacing=(1, 1, 1), origin=(0, 0, 0))
    options = Options(lung_mask_channel=lungs, lung_method="threshold")
    said: list[str] = []
    convert_dataset(Dataset530_NonCOVIDLesions.RECIPE, root, output=tmp_path / "raw", options=options, tell=said.append)
    assert any("the masks of lits_003 have a blank header" in line for line in said)
    assert any("no lungs were found in lits_003" in line for line in said) == lungs
    write_volume(root / "Task06_Lung/imagesTr/lung_001.nii.gz", hounsfield(SHAPE, 1))
    write_volume(root / "Task06_Lung/labelsTr/lung_001.nii.gz", blob(SHAPE, 1), spacing=(1, 1, 1), origin=(0, 0, 0))
    with pytest.raises(UserError, match=r"lung_001\.nii\.gz: its header is blank"):
        convert_dataset(Dataset530_NonCOVIDLesions.RECIPE, root, output=tmp_path / "other", options=options)


def test_the_union_of_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match="holds none of"):
        convert_dataset(Dataset530_NonCOVIDLesions.RECIPE, tmp_path / "source", output=tmp_path / "raw")


@pytest.mark.real_data
def test_real_masks_lie_on_fluid(real_data: Path, tmp_path: Path) -> None:
    options = Options(slices=SliceSelection(only_with_lesion=True, at_most=2))
    folder = convert_dataset(
        Dataset521_NSCLCEffusion.RECIPE, real_data / "nsclc_effusion", output=tmp_path / "raw", options=options
    )
    records = json.loads((folder / "conversion.json").read_text())["cases"]
    means = {record["case"]: record["notes"]["mean_hu"]["1"] for record in records}
    assert means == {"nsclc_LUNG1-005": 11.1, "nsclc_LUNG1-016": -7.1, "nsclc_LUNG1-028": -80.8}
