"""Data sets 505 and 508 on miniatures: one scale, patients kept together, lungs beneath infection."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import blob, grey, hounsfield, read_array, write_picture, write_volume

from nnunet_covid.dataset_conversion import Dataset505_COVID19CTSeg, Dataset508_COVID19CTSeg2D
from nnunet_covid.dataset_json import window_of
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, SliceSelection, convert_dataset

RADIOPAEDIA = (
    "radiopaedia_10_85902_1",
    "radiopaedia_10_85902_3",
    "radiopaedia_14_85914_0",
    "radiopaedia_27_86410_0",
    "radiopaedia_29_86490_1",
    "radiopaedia_29_86491_1",
    "radiopaedia_36_86526_0",
    "radiopaedia_40_86625_0",
    "radiopaedia_4_85506_1",
    "radiopaedia_7_85703_0",
)
STEMS = (*(f"coronacases_{i:03d}" for i in range(1, 11)), *RADIOPAEDIA)
SHAPE = (4, 14, 16)


def source(root: Path, stems: tuple[str, ...] = STEMS) -> dict[str, dict[str, np.ndarray]]:
    written = {}
    for seed, stem in enumerate(stems):
        is_grey = stem.startswith("radiopaedia")
        image = grey(SHAPE, seed) if is_grey else hounsfield(SHAPE, seed) - 300
        lungs = np.zeros(SHAPE, dtype=np.uint8)
        lungs[:, 2:12, 1:7], lungs[:, 2:12, 9:15] = 1, 2
        infection = blob(SHAPE, seed)
        write_volume(root / f"COVID-19-CT-Seg_20cases/{stem}.nii.gz", image)
        write_volume(root / f"Infection_Mask/{stem}.nii.gz", infection)
        write_volume(root / f"Lung_Mask/{stem}.nii.gz", lungs)
        written[stem] = {"image": image, "infection": infection, "lungs": lungs}
    return written


def test_both_scales_become_one(tmp_path: Path) -> None:
    written = source(tmp_path / "source", STEMS[8:12])
    folder = convert_dataset(Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    for stem, arrays in written.items():
        image = read_array(folder / f"imagesTr/{stem}_0000.nii.gz")
        expected = arrays["image"]
        if stem.startswith("coronacases"):
            expected = np.rint((expected.astype(np.float64).clip(-1250, 250) + 1250) / 1500 * 255)
        np.testing.assert_array_equal(image, expected, err_msg=stem)
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/{stem}.nii.gz"), arrays["infection"])
    assert window_of(json.loads((folder / "dataset.json").read_text())) == (-1250, 250)


def test_hounsfield_units_on_request(tmp_path: Path) -> None:
    written = source(tmp_path / "source", STEMS[9:11])
    folder = convert_dataset(
        Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=Options(window=None)
    )
    corona = read_array(folder / f"imagesTr/{STEMS[9]}_0000.nii.gz")
    np.testing.assert_array_equal(corona, written[STEMS[9]]["image"].clip(-1250, 250))
    radiopaedia = read_array(folder / f"imagesTr/{STEMS[10]}_0000.nii.gz")
    np.testing.assert_allclose(radiopaedia, written[STEMS[10]]["image"] / 255 * 1500 - 1250, atol=1e-3)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert window_of(description) is None


def test_folds_train_on_four_and_validate_on_sixteen(tmp_path: Path) -> None:
    source(tmp_path / "source")
    folder = convert_dataset(Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [(len(fold["train"]), len(fold["val"])) for fold in splits] == [(4, 16)] * 5
    assert sorted(name for fold in splits for name in fold["train"]) == sorted(STEMS)
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(STEMS)
        for pair in (RADIOPAEDIA[:2], RADIOPAEDIA[4:6]):
            assert len(set(pair) & set(fold["train"])) != 1, "two series of one patient on both sides"


def test_the_users_own_folds(tmp_path: Path) -> None:
    source(tmp_path / "source", STEMS[:3])
    folds = [{"train": [STEMS[2]], "val": [STEMS[0], STEMS[1]]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    folder = convert_dataset(
        Dataset505_COVID19CTSeg.RECIPE,
        tmp_path / "source",
        output=tmp_path / "raw",
        options=Options(splits=tmp_path / "folds.json"),
    )
    assert json.loads((folder / "splits_final.json").read_text()) == folds
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["nobody"], "val": []}]))
    with pytest.raises(UserError, match="names cases that do not exist: nobody"):
        convert_dataset(
            Dataset505_COVID19CTSeg.RECIPE,
            tmp_path / "source",
            output=tmp_path / "other",
            options=Options(splits=tmp_path / "folds.json"),
        )


def test_infection_is_painted_over_the_lungs(tmp_path: Path) -> None:
    written = source(tmp_path / "source", STEMS[:2])
    folder = convert_dataset(
        Dataset505_COVID19CTSeg.RECIPE,
        tmp_path / "source",
        output=tmp_path / "raw",
        options=Options(classes="lungs-and-infection"),
    )
    for stem, arrays in written.items():
        expected = np.where(arrays["infection"] == 1, 3, arrays["lungs"])
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/{stem}.nii.gz"), expected)


def test_slices_with_a_lesion_are_those_with_infection(tmp_path: Path) -> None:
    written = source(tmp_path / "source", STEMS[8:12])
    names = []
    for classes in ("infection", "lungs-and-infection"):
        options = replace(
            Dataset505_COVID19CTSeg.RECIPE.defaults, classes=classes, slices=SliceSelection(only_with_lesion=True)
        )
        output = tmp_path / classes
        folder = convert_dataset(Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", options=options, output=output)
        names.append(sorted(path.name for path in (folder / "labelsTr").iterdir()))
    infected = sum(int(arrays["infection"].any(axis=(1, 2)).sum()) for arrays in written.values())
    assert names[0] == names[1]
    assert len(names[0]) == infected < 4 * SHAPE[0]


def test_a_radiopaedia_volume_in_other_units_is_refused(tmp_path: Path) -> None:
    source(tmp_path / "source", STEMS[9:11])
    write_volume(tmp_path / f"source/COVID-19-CT-Seg_20cases/{STEMS[10]}.nii.gz", hounsfield(SHAPE, 1))
    with pytest.raises(UserError, match=f"{STEMS[10]}.nii.gz: values from .* expected grey values 0 to 255"):
        convert_dataset(Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    source(tmp_path / "source", STEMS[:2])
    write_volume(tmp_path / f"source/Infection_Mask/{STEMS[0]}.nii.gz", blob(SHAPE, 0), origin=(0.0, 0.0, 0.0))
    write_volume(tmp_path / f"source/Lung_Mask/{STEMS[1]}.nii.gz", blob((4, 14, 15), 0))
    with pytest.raises(UserError) as e:
        convert_dataset(Dataset505_COVID19CTSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert f"Infection_Mask/{STEMS[0]}.nii.gz: lies elsewhere in space" in str(e.value)
    assert f"Lung_Mask/{STEMS[1]}.nii.gz: has 15×14×4 voxels" in str(e.value)


def pictures(root: Path, per_patient: int = 3) -> dict[str, dict[str, np.ndarray]]:
    lines, written = ["file,case"], {}
    for index in range(6 * per_patient):
        patient = f"coronacases_{index // per_patient + 1:03d}"
        name = f"{index:04d}.png"
        arrays = {
            "ct": grey((18, 20), index),
            "covid": blob((18, 20), index, 255),
            "lungs": blob((18, 20), index + 99, 255),
        }
        for folder, array in arrays.items():
            write_picture(root / folder / name, array)
        written[f"{patient}_{index:04d}"] = arrays
        lines.append(f"{name},{patient}")
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    return written


def test_slices_with_their_lung_masks(tmp_path: Path) -> None:
    written = pictures(tmp_path / "source")
    folder = convert_dataset(
        Dataset508_COVID19CTSeg2D.RECIPE,
        tmp_path / "source",
        output=tmp_path / "raw",
        options=Options(lung_mask_channel=True),
    )
    assert len(list((folder / "imagesTr").iterdir())) == 2 * len(written)
    for name, arrays in written.items():
        np.testing.assert_array_equal(read_array(folder / f"imagesTr/{name}_0000.png"), arrays["ct"])
        np.testing.assert_array_equal(read_array(folder / f"imagesTr/{name}_0001.png"), arrays["lungs"] // 255)
        np.testing.assert_array_equal(read_array(folder / f"labelsTr/{name}.png"), arrays["covid"] // 255)
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert {n[:15] for n in fold["train"]}.isdisjoint({n[:15] for n in fold["val"]})
        assert len(fold["train"]) + len(fold["val"]) == len(written)


def test_a_slice_without_a_patient_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "source")
    lines = (tmp_path / "source/cases.csv").read_text().splitlines()
    (tmp_path / "source/cases.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match=r"0017\.png: has no line in cases\.csv"):
        convert_dataset(Dataset508_COVID19CTSeg2D.RECIPE, tmp_path / "source", output=tmp_path / "raw")


@pytest.mark.real_data
def test_real_patients_stay_on_one_side(real_data: Path, tmp_path: Path) -> None:
    folder = convert_dataset(Dataset508_COVID19CTSeg2D.RECIPE, real_data / "covid19_ct_seg_2d", output=tmp_path / "raw")
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 5
    assert sorted(name for fold in splits for name in fold["val"]) == sorted(
        p.stem for p in (folder / "labelsTr").iterdir()
    )
    for fold in splits:
        train, val = ({name[:15] for name in fold[side]} for side in ("train", "val"))
        assert (len(train), len(val)) == (8, 2)
        assert train.isdisjoint(val)
