"""A user's own folder: formats, pairing, labels, patients, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import odd_volumes
import pytest
from image_files import blob, grey, hounsfield, read_array, write_dicom_series, write_picture, write_volume

from nnunet_covid.cli import main
from nnunet_covid.dataset_conversion.folder import FolderLayout, convert_folder
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, pictures

SHAPE = (4, 10, 12)


def write_slices(source: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_picture(source / f"images/{name}.png", grey((20, 24), seed))
        write_picture(source / f"masks/{name}.png", blob((20, 24), seed, 255))
    return source


def patients_in(converted: Path) -> dict[str, str]:
    return {
        entry["case"]: entry["patient"] for entry in json.loads((converted / "conversion.json").read_text())["cases"]
    }


def test_volumes_of_every_format(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed, ending in enumerate((".nii.gz", ".nii", ".nrrd", ".mha")):
        write_volume(source / f"images/case{seed}{ending}", hounsfield(SHAPE, seed))
        write_volume(source / f"masks/case{seed}_seg.nii.gz", blob(SHAPE, seed))
    write_dicom_series(source / "images/case4/series", hounsfield(SHAPE, 4))
    write_volume(source / "masks/case4.nrrd", blob(SHAPE, 4))
    converted = convert_folder(source, output=tmp_path / "raw", name="Mine", number=700)
    assert converted.name == "Dataset700_Mine"
    for seed in range(5):
        np.testing.assert_array_equal(
            read_array(converted / f"imagesTr/case00{seed}_0000.nii.gz"), hounsfield(SHAPE, seed)
        )
        np.testing.assert_array_equal(read_array(converted / f"labelsTr/case00{seed}.nii.gz"), blob(SHAPE, seed))
    description = json.loads((converted / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"] == {"background": 0, "infection": 1}


def test_volumes_that_do_not_say_where_left_is_are_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    odd_volumes.nifti(tmp_path / "source/a.nii", hounsfield(SHAPE, 0), qform_code=0, sform_code=0)
    odd_volumes.nifti(tmp_path / "source/b.nii", hounsfield(SHAPE, 1), sform_code=0)
    odd_volumes.meta_image(tmp_path / "source/c.mha", hounsfield(SHAPE, 2), TransformMatrix=None)
    said: list[str] = []
    convert_folder(tmp_path / "source", output=tmp_path / "raw", tell=said.append)
    assert any("left and right are not told by a.nii, c.mha: their axes are taken" in line for line in said)


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    for seed, name in enumerate(("ann_1", "ann_2", "bob_1")):
        write_picture(tmp_path / f"source/{name}.png", grey((20, 24), seed))
        write_picture(tmp_path / f"source/{name}_mask.png", blob((20, 24), seed, 255))
    layout = FolderLayout(patient_pattern=r"^(\w+)_")
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw", layout=layout)
    np.testing.assert_array_equal(read_array(converted / "imagesTr/ann_002_0000.png"), grey((20, 24), 1))
    np.testing.assert_array_equal(read_array(converted / "labelsTr/bob_001.png"), blob((20, 24), 2))
    splits = json.loads((converted / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in splits) == [["ann_001", "ann_002"], ["bob_001"]]


def test_numbers_that_look_like_a_suffix_are_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("a_0000", "a_0003", "b_0000")):
        write_picture(tmp_path / f"source/images/{name}.png", grey((20, 24), seed))
        write_picture(tmp_path / f"source/masks/{name}.png", blob((20, 24), seed, 255))
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw")
    for seed, name in enumerate(("a_0000", "a_0003", "b_0000")):
        np.testing.assert_array_equal(read_array(converted / f"imagesTr/{name}_0000.png"), grey((20, 24), seed))
        np.testing.assert_array_equal(read_array(converted / f"labelsTr/{name}.png"), blob((20, 24), seed))


def test_nnunets_own_names_lose_their_suffix(tmp_path: Path) -> None:
    write_volume(tmp_path / "source/imagesTr/a_0000.nii.gz", hounsfield(SHAPE, 0))
    write_volume(tmp_path / "source/labelsTr/a.nii.gz", blob(SHAPE, 0))
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw")
    assert [path.name for path in (converted / "imagesTr").iterdir()] == ["a_0000.nii.gz"]


def test_without_masks_everything_is_for_prediction(tmp_path: Path) -> None:
    write_volume(tmp_path / "source/a.nii.gz", hounsfield(SHAPE, 0))
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw")
    assert sorted(path.name for path in converted.iterdir()) == ["conversion.json", "dataset.json", "imagesTs"]


def test_several_classes_need_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_volume(source / "images/a.nii.gz", hounsfield(SHAPE, 0))
    mask = np.maximum(blob(SHAPE, 0, 3), blob(SHAPE, 1, 7))
    write_volume(source / "masks/a.nii.gz", mask)
    with pytest.raises(UserError, match="values 3, 7; name each class NAME=VALUE") as e:
        convert_folder(source, output=tmp_path / "raw")
    assert e.value.about == "label"
    labels = {"consolidation": 7, "ground_glass": 3}
    converted = convert_folder(source, output=tmp_path / "raw", labels=labels)
    np.testing.assert_array_equal(
        read_array(converted / "labelsTr/a.nii.gz"), np.select([mask == 7, mask == 3], [1, 2], 0)
    )


def test_an_image_without_mask_is_a_problem_unless_allowed(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write_picture(tmp_path / f"source/images/{name}.png", grey((20, 24), seed))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    with pytest.raises(UserError) as e:
        convert_folder(tmp_path / "source", output=tmp_path / "raw")
    assert "images/b.png: has no mask" in str(e.value)
    assert "images/c.png: has no mask" in str(e.value)
    converted = convert_folder(
        tmp_path / "source", output=tmp_path / "raw", layout=FolderLayout(allow_missing_masks=True)
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
        convert_folder(source, output=tmp_path / "raw")
    converted = convert_folder(source, output=tmp_path / "raw", layout=FolderLayout(resample_masks=True))
    np.testing.assert_array_equal(read_array(converted / "labelsTr/a.nii.gz"), mask)


def test_other_labels_are_another_conversion(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_picture(source / "images/a.png", grey((20, 24), 0))
    write_picture(source / "masks/a.png", blob((20, 24), 0, 255))
    convert_folder(source, output=tmp_path / "raw")
    with pytest.raises(UserError, match="with other options"):
        convert_folder(source, output=tmp_path / "raw", labels={"lesion": 255})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lung-method", "threshold", "--lung-weights", "nofile"], "threshold has no use for nofile"),
        (["--label", "background=255"], "background is always the value 0; give this class another name (--label)"),
        (["--label", "ignore=255"], "name a class as well (--label)"),
        (["--label", "a=255", "--label", "a=254"], "--label a has the values 255 and 254"),
        (["--masks", "nowhere"], "nowhere is not a folder"),
        (["--label", "infection=1"], "outside the label table (255; allowed: 0, 1)"),
        (["--every", "2"], "add --slices all"),
        (["--slices", "all"], "already consists of slices; ask for none (--slices)"),
        (["--window", "-1250", "250"], "grey values, not Hounsfield units; leave out the window (--window)"),
        (["--images", "empty"], "empty is empty; expected .nii.gz"),
        (["--patients", "nowhere.csv"], "nowhere.csv cannot be read as a table"),
        (["--patient-pattern", "b"], "'b' finds no patient in a; it must in every case (--patient-pattern)"),
        (["--number", "1000"], "is not between 1 and 999; choose another (--number)"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_picture(tmp_path / "source/images/a.png", grey((20, 24), 0))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    (tmp_path / "source/empty").mkdir()
    status = main(["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), *arguments])
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "raw").exists() or not any((tmp_path / "raw").iterdir())


@pytest.mark.parametrize("count", ["0", "-1"])
def test_there_is_at_least_one_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "folder", str(tmp_path), "-o", str(tmp_path / "raw"), "--workers", count])
    assert f"--workers: {count} is not a positive number" in capsys.readouterr().err


def test_a_table_may_leave_the_endings_out(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "a_0000", "b_0000", "c_0000")
    for name in "abc":
        (source / f"masks/{name}_0000.png").rename(source / f"masks/{name}.png")
    layout = FolderLayout(patients={"a": "p1", "b_0000": "p1", "c_0000.png": "p2"})
    converted = convert_folder(source, output=tmp_path / "raw", layout=layout)
    assert patients_in(converted) == {"a": "p1", "b": "p1", "c": "p2"}


def test_a_table_names_a_series_by_the_folder_of_its_case(tmp_path: Path) -> None:
    for seed, case in enumerate(("x", "y")):
        write_dicom_series(tmp_path / f"source/{case}/series", hounsfield(SHAPE, seed))
    layout = FolderLayout(patients={"x": "p1", "y": "p1"})
    assert set(patients_in(convert_folder(tmp_path / "source", output=tmp_path / "raw", layout=layout)).values()) == {
        "p1"
    }


def test_a_pattern_stands_in_where_the_table_has_no_line(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1", "other")
    layout = FolderLayout(patients={"other": "PA"}, patient_pattern="^(PA)_")
    converted = convert_folder(source, output=tmp_path / "raw", layout=layout)
    assert set(patients_in(converted).values()) == {"PA"}


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (FolderLayout(patients={"PA_0.png": "p", "PB_0": "p"}), r"lacks the images PA_1\.png; add a line"),
        (
            FolderLayout(patients={"PA_0": "p", "PA_1": "p", "PB_0": "p", "PC.png": "p", "PB_000": "q"}),
            r"names no images: PB_000, PC\.png; .* known are PA_0\.png, PA_1\.png, PB_0\.png",
        ),
        (FolderLayout(patients={"PA_0": "p", "PA_0.png": "q", "PA_1": "p", "PB_0": "p"}), "says p and q for PA_0"),
        (FolderLayout(patient_pattern="^(PA)_"), "finds no patient in PB_000; it must in every case"),
        (FolderLayout(patient_pattern="_0$"), "finds no patient in PA_000, PA_001, PB_000"),
        (FolderLayout(patient_pattern="(PB)?"), "finds no patient in PA_000, PA_001"),
    ],
)
def test_every_image_has_a_patient_where_patients_are_given(tmp_path: Path, layout: FolderLayout, message: str) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1", "PB_0")
    with pytest.raises(UserError, match=message):
        convert_folder(source, output=tmp_path / "raw", layout=layout)
    assert not (tmp_path / "raw").exists()


def test_other_patients_are_another_conversion(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1", "PB_0", "PB_1")
    convert_folder(source, output=tmp_path / "raw")
    with pytest.raises(UserError, match=r"with other patients for PA_000, .*; delete it .* another number"):
        convert_folder(source, output=tmp_path / "raw", layout=FolderLayout(patient_pattern=r"^(\w+)_"))


def test_one_patient_gives_no_folds_and_a_note(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1")
    said: list[str] = []
    layout = FolderLayout(patient_pattern="^PA")
    converted = convert_folder(source, output=tmp_path / "raw", layout=layout, tell=said.append)
    assert not (converted / "splits_final.json").exists()
    note = "note: one patient is too few for folds that do not leak, none were written; train fold 'all'"
    assert said[-1] == note


def test_the_cases_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_slices(tmp_path / "source", "a", "b")
    opened: list[Path] = []
    monkeypatch.setattr(pictures, "picture_size", lambda path: opened.append(path) or (24, 20))
    convert_folder(source, output=tmp_path / "raw", labels={"infection": 255})
    assert sorted(opened) == sorted(path for path in source.rglob("*.png"))


@pytest.mark.parametrize("labels", [None, {"infection": 1}])
def test_damaged_images_and_masks_are_named_in_one_error(tmp_path: Path, labels: dict[str, int] | None) -> None:
    source = tmp_path / "source"
    no_numbers = np.full(SHAPE, np.nan, dtype=np.float32)
    for seed, name in enumerate("abc"):
        write_volume(source / f"images/{name}.nrrd", no_numbers if name in "ab" else hounsfield(SHAPE, seed))
        write_volume(source / f"masks/{name}.nrrd", no_numbers if name == "c" else blob(SHAPE, seed))
    with pytest.raises(UserError) as e:
        convert_folder(source, output=tmp_path / "raw", labels=labels)
    for file in ("images/a.nrrd", "images/b.nrrd", "masks/c.nrrd"):
        assert f"{file}: " in str(e.value)


def test_own_folds_are_checked_before_the_work(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1")
    (source / "images/PA_1.png").write_bytes((source / "images/PA_1.png").read_bytes()[:200])
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["PA_0"], "val": ["PA_1"]}]))
    with pytest.raises(UserError, match="cases that do not exist: PA_0, PA_1; known are PA_000, PA_001"):
        convert_folder(source, output=tmp_path / "raw", options=Options(splits=tmp_path / "folds.json"))


def test_own_folds_with_a_patient_on_both_sides_are_noted(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "PA_0", "PA_1", "PB_0")
    folds = [{"train": ["PA_000", "PA_001"], "val": ["PB_000"]}, {"train": ["PA_000", "PB_000"], "val": ["PA_001"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    said: list[str] = []
    convert_folder(
        source,
        output=tmp_path / "raw",
        layout=FolderLayout(patient_pattern="^P[AB]"),
        options=Options(splits=tmp_path / "folds.json"),
        tell=said.append,
    )
    assert [line for line in said if "fold " in line] == [
        "note: fold 1 has patients PA in train and in val; its score will be too good"
    ]


@pytest.mark.parametrize(
    ("empty", "said_of_it"),
    [("a", "note: the masks of a mark nothing"), ("ab", "warning: none of the 2 masks marks anything: are they")],
)
def test_masks_that_mark_nothing_are_named(tmp_path: Path, empty: str, said_of_it: str) -> None:
    source = write_slices(tmp_path / "source", "a", "b")
    for name in empty:
        write_picture(source / f"masks/{name}.png", np.zeros((20, 24), np.uint8))
    said: list[str] = []
    convert_folder(source, output=tmp_path / "raw", labels={"lesion": 255}, tell=said.append)
    assert [line for line in said if line.startswith(said_of_it)]


def test_cases_of_no_fold_are_named_and_a_byte_order_mark_is_none_of_a_name(tmp_path: Path) -> None:
    source = write_slices(tmp_path / "source", "a", "b", "c")
    (tmp_path / "folds.json").write_bytes(b'\xef\xbb\xbf[{"train": ["a"],\r\n"val": ["c"]}]')
    said: list[str] = []
    options = Options(splits=tmp_path / "folds.json")
    convert_folder(source, output=tmp_path / "raw", options=options, tell=said.append)
    assert "note: no fold has b; nnU-Net would not use them" in said


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_mask_that_is_a_dicom_series_lies_on_the_grid_of_a_volume_file(tmp_path: Path, shift: float) -> None:
    grid = {"spacing": (0.8, 0.7, 2.5), "origin": (-10.0, 20.0, -30.0 + shift)}
    write_volume(tmp_path / "source/images/a.nii.gz", hounsfield(SHAPE, 0))
    write_dicom_series(tmp_path / "source/masks/a", blob(SHAPE, 0).astype(np.int16), **grid)
    if shift:
        with pytest.raises(UserError, match=r"masks/a: lies elsewhere in space than its image"):
            convert_folder(tmp_path / "source", output=tmp_path / "raw")
        return
    converted = convert_folder(tmp_path / "source", output=tmp_path / "raw")
    np.testing.assert_array_equal(read_array(converted / "labelsTr/a.nii.gz"), blob(SHAPE, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nnUNet_raw is not set"),
        ({"output": "raw", "number": 700}, "Dataset700_Other has the same number"),
        ({"output": "raw", "number": 1000}, "number 1000 is not between 1 and 999"),
        ({"output": "raw", "name": "a b"}, "the name 'a b' of a data set must consist of"),
        ({"output": "raw", "options": Options(window=(250, -1250))}, "give two numbers, the lower end first"),
    ],
)
def test_the_destination_is_looked_at_before_any_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict, message: str
) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/Dataset700_Other").mkdir(parents=True)
    write_slices(tmp_path / "source", "a")
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255) // 2 + blob((20, 24), 3, 100))
    where = {key: Path(value) if key == "output" else value for key, value in arguments.items()}
    with pytest.raises(UserError, match=message):
        convert_folder(tmp_path / "source", **where)


def test_a_name_may_hold_what_nnunet_takes(tmp_path: Path) -> None:
    write_slices(tmp_path / "source", "a", "b")
    command = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--name", "My_own-2"]
    assert main([*command, "--workers", "1"]) == 0
    assert (tmp_path / "raw/Dataset599_My_own-2").is_dir()


@pytest.fixture
def converted(tmp_path: Path) -> tuple[list[str], Path]:
    """A finished conversion: the command that made it, and its record."""
    write_slices(tmp_path / "source", "a", "b")
    command = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main(command) == 0
    return command, tmp_path / "raw/Dataset599_Folder/conversion.json"


@pytest.mark.parametrize("text", ['"text"', "5", "[]", "null", '{"cases": "ab"}', '{"cases": [5]}', "{}", "{"])
def test_a_record_that_is_none_is_no_finished_conversion(
    converted: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    command, path = converted
    path.write_text(text)
    assert main(command) == 2
    assert "exists and is no finished conversion of ours" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["sources", "outputs", "notes"])
def test_a_damaged_record_of_a_case_is_no_finished_conversion(
    converted: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], key: str
) -> None:
    command, path = converted
    document = json.loads(path.read_text())
    document["cases"][0][key] = ["a"]
    path.write_text(json.dumps(document))
    assert main(command) == 2
    assert "exists and is no finished conversion of ours" in capsys.readouterr().err
