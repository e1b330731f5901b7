"""``nnunet-covid check``: every fault is found where it was planted, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from chest_phantom import chest_slice, ellipse
from image_files import read_array, write_picture, write_volume

from nnunet_covid.cli import main
from nnunet_covid.dataset_check.checks import run_checks
from nnunet_covid.dataset_check.dataset import open_dataset
from nnunet_covid.dataset_check.images import (
    likely_mirroring,
    near_duplicates,
    share_on_air,
    spread_by_mirroring,
    thumbnail,
)
from nnunet_covid.dataset_conversion import Dataset501_COVIDSemiSeg, Dataset521_NSCLCEffusion
from nnunet_covid.dataset_conversion.folder import FolderLayout, convert_folder
from nnunet_covid.raw_dataset import Options, Scan, SliceSelection, convert_dataset
from nnunet_covid.raw_dataset.scan import to_8_bit


def patient_slice(seed: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A chest of its own: lesions, heart and texture at random, spine at the bottom; image and lesion mask."""
    generator = np.random.default_rng(seed)
    image, lungs = chest_slice(size)
    image[ellipse(size, 0.78, 0.5, 0.05, 0.05)] = 700  # spine
    for _ in range(6):
        y, x, r = generator.uniform(0.3, 0.7), generator.uniform(0.1, 0.9), generator.uniform(0.05, 0.12)
        blotch = ellipse(size, y, x, r, r) & (image > -950)
        image[blotch] += generator.uniform(100, 400)
    y, x = generator.uniform(0.35, 0.6), generator.choice([0.27, 0.3, 0.33])
    lesion = ellipse(size, y, x, 0.07, 0.05) & lungs
    image[lesion] = -300
    image += generator.normal(0, 15, image.shape)
    return to_8_bit(image, -1250, 250), lesion


def write_dataset(root: Path, *, patients: int = 6, slices: int = 2) -> Path:
    """A faultless raw data set with test images and patient-wise folds."""
    folder = root / "Dataset900_Faultless"
    names = []
    for patient in range(patients):
        for index in range(slices):
            name = f"patient{patient}_{index:03d}"
            image, lesion = patient_slice(10 * patient + index)
            write_picture(folder / f"imagesTr/{name}_0000.png", image)
            write_picture(folder / f"labelsTr/{name}.png", lesion.astype(np.uint8))
            names.append(name)
    for index in range(2):
        write_picture(folder / f"imagesTs/test{index}_000_0000.png", patient_slice(1000 + index)[0])
    half = len(names) // 2
    splits = [{"train": names[:half], "val": names[half:]}, {"train": names[half:], "val": names[:half]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    description = {
        "labels": {"background": 0, "infection": 1},
        "file_ending": ".png",
        "channel_names": {"0": "grey_ct"},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def found(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.check, finding.cases) for finding in run_checks(open_dataset(str(folder)))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return write_dataset(tmp_path)


def test_nothing_is_found_where_nothing_is_wrong(folder: Path) -> None:
    assert found(folder) == []


def test_a_patient_on_both_sides(folder: Path) -> None:
    splits = json.loads((folder / "splits_final.json").read_text())
    splits[0]["train"].remove("patient2_001")
    splits[0]["val"].append("patient2_001")
    (folder / "splits_final.json").write_text(json.dumps(splits))
    assert found(folder) == [("patients", ("patient2_000", "patient2_001"))]


def test_patients_come_from_the_manifest_where_there_is_one(folder: Path) -> None:
    names = [path.stem.removesuffix("_0000") for path in sorted((folder / "imagesTr").iterdir())]
    records = [{"patient": "anna" if n in names[:1] + names[-1:] else n, "outputs": {n: {}}} for n in names]
    (folder / "conversion.json").write_text(json.dumps({"cases": records}))
    checks = found(folder)
    assert [check for check, _ in checks] == ["patients", "patients"], "one finding per fold"
    assert set(checks[0][1]) == {names[0], names[-1]}


def test_own_images_of_no_known_patient_are_told_by_their_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for patient in range(6):
        for index in range(2):
            image, lesion = patient_slice(10 * patient + index)
            write_picture(source / f"images/patient{patient}_{index:03d}.png", image)
            write_picture(source / f"masks/patient{patient}_{index:03d}.png", lesion.astype(np.uint8))
    said: list[str] = []
    folder = convert_folder(source, output=tmp_path / "raw", tell=said.append)
    assert "named like several images of a patient" in said[-1]
    findings = [finding for finding in run_checks(open_dataset(str(folder))) if finding.check == "patients"]
    assert findings
    assert all("(patients guessed from the case names)" in finding.message for finding in findings)
    layout = FolderLayout(patient_pattern="^(.+)[_-]")
    folder = convert_folder(source, output=tmp_path / "known", layout=layout, tell=said.append)
    assert "named like several" not in said[-1]
    assert found(folder) == []


def test_a_split_that_names_unknown_cases(folder: Path) -> None:
    splits = json.loads((folder / "splits_final.json").read_text())
    splits[1]["val"].append("nobody")
    (folder / "splits_final.json").write_text(json.dumps(splits))
    assert found(folder) == [("splits", ("nobody",))]


def test_a_test_image_nearly_the_same_as_a_training_image(folder: Path) -> None:
    image, _ = patient_slice(30)
    again = image.astype(np.float32) * 0.8 + np.random.default_rng(0).normal(20, 4, image.shape)
    write_picture(folder / "imagesTs/test0_000_0000.png", again.clip(0, 255).astype(np.uint8))
    assert found(folder) == [("duplicates", ("patient3_000", "test0_000"))]


def test_a_mask_on_air(folder: Path) -> None:
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[1:8, 1:8] = 1
    write_picture(folder / "labelsTr/patient1_001.png", mask)
    assert ("masks on air", ("patient1_001",)) in found(folder)


def test_labels_off_the_table(folder: Path) -> None:
    mask = patient_slice(41)[1].astype(np.uint8) * 2
    write_picture(folder / "labelsTr/patient4_001.png", mask)
    assert found(folder) == [("labels", ("patient4_001",))]


def test_masks_stored_mirrored(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        patient, index = path.stem.removeprefix("patient").split("_")
        write_picture(path, patient_slice(10 * int(patient) + int(index))[1][:, ::-1].astype(np.uint8))
    findings = [f for f in run_checks(open_dataset(str(folder))) if f.check == "mirrored masks"]
    assert len(findings) == 1
    assert "left to right" in findings[0].message


def test_images_upside_down(folder: Path) -> None:
    for index in range(6):
        write_picture(folder / f"imagesUn/odd_{index:03d}_0000.png", patient_slice(2000 + index)[0][::-1])
    findings = [f for f in run_checks(open_dataset(str(folder))) if f.check == "orientation"]
    assert [finding.cases for finding in findings] == [tuple(f"odd_{i:03d}" for i in range(6))]
    assert "mirrored top to bottom" in findings[0].message or "turned by 180°" in findings[0].message


def test_volumes_stored_in_another_direction(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset901_Volumes"
    for index in range(3):
        image = np.random.default_rng(index).normal(-400, 300, (8, 20, 20)).astype(np.float32)
        direction = (1, 0, 0, 0, 1, 0, 0, 0, 1) if index else (-1, 0, 0, 0, -1, 0, 0, 0, 1)
        write_volume(folder / f"imagesTr/case{index}_0000.nii.gz", image, direction=tuple(map(float, direction)))
    description = {"labels": {"background": 0}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(description))
    assert found(folder) == [("orientation", ("case0",))]


def test_command_writes_pictures_and_tells_by_status(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    assert main(["check", str(folder), "-o", str(output)]) == 0
    assert not output.exists()
    write_picture(folder / "imagesTs/test1_000_0000.png", patient_slice(20)[0])
    assert main(["check", str(folder), "-o", str(output)]) == 1
    assert "patient2_000 and test case test1_000 are nearly the same" in capsys.readouterr().out
    entry = json.loads((output / "findings.json").read_text())[0]
    assert (output / entry["picture"]).stat().st_size > 0


@pytest.mark.parametrize("argument", ["900", "nowhere"])
def test_no_such_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(["check", argument]) == 2
    assert f"data set {argument!r}: there is none in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", "{}", "has no 'labels'"),
        ("splits_final.json", '[{"train": []}]', "holds no splits"),
        ("conversion.json", "[", "is damaged"),
    ],
)
def test_damaged_documents(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    (folder / name).write_text(content)
    assert main(["check", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_near_duplicates_of_nothing() -> None:
    assert near_duplicates([], []) == []


def test_share_on_air_in_hounsfield_units() -> None:
    image = np.full((2, 4, 4), -1000.0)
    image[:, 2:] = 20
    mask = np.zeros((2, 4, 4), dtype=bool)
    mask[0, 1:3] = True
    assert share_on_air(Scan(image, is_hu=True), mask) == 0.5


def test_masks_that_fit_as_stored_are_not_mirrored() -> None:
    spreads = [spread_by_mirroring(*patient_slice(seed)) for seed in range(5)]
    assert likely_mirroring(spreads) is None
    assert likely_mirroring([]) is None


def test_thumbnails_do_not_depend_on_size_or_contrast() -> None:
    image, _ = patient_slice(0)
    larger = np.kron(image.astype(np.float32), np.ones((2, 3))) * 4 + 7
    np.testing.assert_allclose(thumbnail(image), thumbnail(larger), atol=1e-4)


@pytest.mark.real_data
def test_the_known_near_duplicates_of_covid_semiseg(real_data: Path, tmp_path: Path) -> None:
    pool = "TrainingSet/LungInfection-Train/Pseudo-label/Imgs"
    for path in sorted((real_data / "covid_semiseg").rglob("LungInfection-*/**/*.*")):
        relative = path.relative_to(real_data / "covid_semiseg")
        if relative.parent.as_posix() != pool or int(path.stem.rpartition("_")[2]) % 10 == 0:
            (tmp_path / "source" / relative).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / relative).symlink_to(path.resolve())
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path)
    findings = run_checks(open_dataset(str(folder)))
    pairs = {f.cases for f in findings if f.check == "duplicates" and "test case" in f.message}
    known = {("005", "093"), ("017", "091"), ("033", "097")}
    assert {(f"covidsemiseg_{a}", f"covidsemiseg_{b}") for a, b in known} <= pairs
    assert len(pairs) == 4
    mirrored = [f for f in findings if f.check == "orientation"]
    assert len(mirrored) == 1
    coronacases = {path.name[:-9] for path in (folder / "imagesUn").glob("coronacases*")}
    assert set(mirrored[0].cases) == coronacases
    assert "mirrored left to right" in mirrored[0].message


@pytest.mark.real_data
def test_effusion_masks_copied_as_arrays_are_noticed(real_data: Path, tmp_path: Path) -> None:
    options = Options(slices=SliceSelection(only_with_lesion=True, at_most=8))
    folder = convert_dataset(
        Dataset521_NSCLCEffusion.RECIPE, real_data / "nsclc_effusion", output=tmp_path, options=options
    )
    assert found(folder) == []
    for path in (folder / "labelsTr").iterdir():
        write_volume(path, read_array(path)[::-1], spacing=(1, 1), origin=(0, 0), direction=(1, 0, 0, 1))
    findings = run_checks(open_dataset(str(folder)))
    assert {f.check for f in findings} <= {"mirrored masks", "masks on air"}
    assert ["top to bottom" in f.message for f in findings if f.check == "mirrored masks"] == [True]


def write_scales(root: Path, images: dict[str, np.ndarray], channel: str) -> Path:
    """A raw data set of volumes or slices without labels."""
    for name, image in images.items():
        write_volume(root / f"imagesTs/{name}_0000.nii.gz", image[None] if image.ndim == 2 else image)
    description = {"channel_names": {"0": channel}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps({**description, "numTraining": 0}))
    return root


GREY = {name: patient_slice(seed)[0] for seed, name in enumerate("abcdef")}
HU = {name: image.astype(np.int16) * 6 - 1250 for name, image in GREY.items()}


@pytest.mark.parametrize(
    ("images", "channel", "message", "cases"),
    [
        (HU | {"b": GREY["b"]}, "CT", "grey values in b, but Hounsfield units in the other images", ("b",)),
        (HU | {"b": HU["b"] + 1250}, "CT", "grey values in b, but Hounsfield units in the other images", ("b",)),
        (GREY, "CT", "no image holds Hounsfield units, but dataset.json calls their channel CT", tuple("abcdef")),
        (GREY | {"c": GREY["c"] / np.float32(255)}, "grey_ct", "less or more than 8 times apart in c", ("c",)),
        (
            GREY | {"d": 255 - GREY["d"]},
            "grey_ct",
            "runs the other way round than in the rest in d",
            ("d",),
        ),
    ],
)
def test_images_in_another_unit(
    tmp_path: Path, images: dict[str, np.ndarray], channel: str, message: str, cases: tuple[str, ...]
) -> None:
    found = run_checks(open_dataset(str(write_scales(tmp_path, images, channel))))
    assert [one.cases for one in found if one.check == "grey scale" and message in one.message] == [cases]


@pytest.mark.parametrize(("images", "channel"), [(HU, "CT"), (GREY, "grey_ct")])
def test_images_in_one_unit(tmp_path: Path, images: dict[str, np.ndarray], channel: str) -> None:
    found = run_checks(open_dataset(str(write_scales(tmp_path, images, channel))))
    assert [one for one in found if one.check == "grey scale"] == []


def test_label_files_without_their_image_and_images_without_theirs(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    label = folder / "labelsTr/patient0_000.png"
    label.rename(label.with_suffix(".PNG"))
    assert found(folder) == [("label files", ("patient0_000",)), ("label files", ("patient0_000.PNG",))]


def test_label_maps_that_mark_nothing(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    names = []
    for path in sorted((folder / "labelsTr").iterdir()):
        write_picture(path, np.zeros_like(read_array(path)))
        names.append(path.stem)
    assert found(folder) == [("labels", tuple(names))]


def test_cases_that_no_fold_names(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    splits = json.loads((folder / "splits_final.json").read_text(encoding="utf-8"))
    for fold in splits:
        for names in fold.values():
            names[:] = [name for name in names if name != "patient0_000"]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    assert found(folder) == [("splits", ("patient0_000",))]


def test_what_is_ignored_is_no_lesion(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"]["ignore"] = 2
    (folder / "dataset.json").write_text(json.dumps(description))
    for path in (folder / "labelsTr").iterdir():
        labels = read_array(path).copy()
        labels[:8] = 2  # the air above the patient
        write_picture(path, labels)
    assert found(folder) == []
    for path in (folder / "labelsTr").iterdir():
        write_picture(path, np.where(read_array(path) == 2, 2, 0).astype(np.uint8))
    assert [check for check, _ in found(folder)] == ["labels"]


@pytest.mark.parametrize("more", ["slices", "volumes"])
def test_slices_among_volumes_are_told_and_the_others_compared(tmp_path: Path, more: str) -> None:
    dataset = tmp_path / "Dataset901_Mixed"
    for index in range(8):
        image, lesion = patient_slice(index)
        array, mask = image.astype(np.int16) * 6 - 1250, lesion.astype(np.uint8)
        if (index < 2) == (more == "slices"):
            array, mask = np.stack([array] * 4), np.stack([mask] * 4)
        for name, pixels in ((f"imagesTr/p{index}_0000", array), (f"labelsTr/p{index}", mask)):
            (dataset / name).parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(pixels), str(dataset / f"{name}.nii.gz"))
    description = {"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    (dataset / "dataset.json").write_text(json.dumps(description))
    findings = [finding for finding in run_checks(open_dataset(str(dataset))) if finding.check == "dimensions"]
    (finding,) = findings
    assert finding.cases == ("p0", "p1")
    odd, others = ("volumes", "slices") if more == "slices" else ("slices", "volumes")
    assert finding.message.startswith(f"2 of 8 images are {odd}, the others {others}: p0, p1; make two data sets")


def test_a_report_holds_what_the_last_run_has_found(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    for index in range(3):
        write_picture(
            folder / f"imagesTs/leak{index}_0000.png", read_array(folder / f"imagesTr/patient{index}_000_0000.png")
        )
    command = ["check", str(folder), "-o", str(output)]
    assert main(command) == 1
    assert len(list(output.glob("*.png"))) == 3
    (output / "mine.png").touch()
    for index in (0, 1):
        (folder / f"imagesTs/leak{index}_0000.png").unlink()
    assert main(command) == 1
    (entry,) = json.loads((output / "findings.json").read_text())
    assert sorted(path.name for path in output.iterdir()) == [entry["picture"], "findings.json", "mine.png"]
    (folder / "imagesTs/leak2_0000.png").unlink()
    assert main(command) == 0
    assert [path.name for path in output.iterdir()] == ["mine.png"]
    assert main(["check", str(folder), "-o", str(tmp_path / "other")]) == 0
    assert not (tmp_path / "other").exists()
