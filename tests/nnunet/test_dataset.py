from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import odd_volumes
import pytest
from image_files import write_volume
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet import dataset, models
from nnunet_covid.nnunet.cases import list_cases
from nnunet_covid.nnunet.dataset import read_images, read_labels


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of two pictures with two channels, number 950, beside another one."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "raw" / "Dataset950_Two"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in "ba":
        for channel in range(2):
            Image.fromarray(np.full((4, 5), 7, np.uint8)).save(folder / "imagesTr" / f"{case}_{channel:04d}.png")
        Image.fromarray(np.eye(4, 5, dtype=np.uint8)).save(folder / "labelsTr" / f"{case}.png")
    description = {
        "channel_names": {"1": "nonorm", "0": "CT"},
        "labels": {"background": 0, "lesion": 1, "ignore": 2},
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "raw" / "Dataset951_Other").mkdir()
    return folder


@pytest.mark.parametrize("text", ["950", "Dataset950_Two", "path"])
def test_number_name_and_path_open_the_same_data_set(raw: Path, text: str) -> None:
    opened = dataset.open_raw_dataset(str(raw) if text == "path" else text)
    assert opened.folder == raw.resolve()
    assert list(opened.cases) == ["a", "b"]
    assert opened.cases["a"].files == tuple(raw / "imagesTr" / f"a_{c:04d}.png" for c in range(2))
    assert (opened.channels, opened.ignore_label, opened.ending, opened.splits()) == (2, 2, ".png", None)
    labels, _ = opened.read_labels(raw / "labelsTr" / "a.png")
    assert labels.shape == (1, 4, 5)


def test_unknown_and_ambiguous_numbers_are_told(raw: Path) -> None:
    with pytest.raises(UserError, match="there is none"):
        dataset.open_raw_dataset("12")
    with pytest.raises(UserError, match=r"does not exist.*; there are Dataset950_Two, Dataset951_Other"):
        dataset.open_raw_dataset("Dataset012_Gone")
    (raw.parent.parent / "preprocessed" / "Dataset950_Three").mkdir()
    with pytest.raises(UserError, match="there are several"):
        dataset.open_raw_dataset("950")


def test_companion_files_are_no_cases(raw: Path) -> None:
    for name in ("._a_0000.png", ".a_0000.png", "notes.txt"):
        (raw / "imagesTr" / name).write_bytes(b"\0\5\26\7")
    assert list(dataset.open_raw_dataset("950").cases) == ["a", "b"]


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("imagesTr/a_0000.png", None, "case a has channels 0001, but 0000 to 0001 are expected"),
        (None, "imagesTr/a_0003.png", "case a has channels 0000, 0001, 0003"),
        (None, "imagesTr/c.png", "wants the channel in the name; rename it to c_0000.png"),
        ("labelsTr/a.png", None, "a.png is missing: a file of case a"),
        ("dataset.json", None, "dataset.json: cannot be read"),
    ],
)
def test_incomplete_data_sets_are_refused(raw: Path, removed: str | None, added: str | None, message: str) -> None:
    if removed:
        (raw / removed).unlink()
    if added:
        (raw / added).touch()
    with pytest.raises(UserError, match=message):
        dataset.open_raw_dataset(str(raw) if removed != "dataset.json" else "950")


def test_one_file_may_hold_all_channels_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a_0000.png").touch()
    assert [case.name for case in list_cases(tmp_path, ".png", 3)] == ["a"]
    with pytest.raises(UserError, match="has channels 0000, but 0000 to 0002 are expected"):
        list_cases(tmp_path, ".png", 3, one_file_may_hold_all=False)
    with pytest.raises(UserError, match="such as CASE_0000"):
        list_cases(tmp_path, ".nii.gz", 1)


def test_a_data_set_may_list_its_files_itself(raw: Path) -> None:
    description = json.loads((raw / "dataset.json").read_text())
    images = [f"imagesTr/b_{channel:04d}.png" for channel in range(2)]
    description["dataset"] = {"only": {"images": images, "label": "labelsTr/b.png"}}
    (raw / "dataset.json").write_text(json.dumps(description))
    (case,) = dataset.open_raw_dataset("950").cases.values()
    assert (case.name, case.label) == ("only", raw / "labelsTr" / "b.png")


@pytest.mark.parametrize(
    "listed",
    [{}, [], None, {"b": {}}, {"b": {"images": [], "label": "b.png"}}, {"b": {"images": "b.png", "label": "b.png"}}],
)
def test_a_data_set_that_lists_no_usable_case_is_refused(raw: Path, listed: object) -> None:
    path = raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": listed}))
    with pytest.raises(UserError, match=r"'dataset' in dataset\.json lists no cases; write .*, or leave it out"):
        dataset.open_raw_dataset("950")


def test_folds_in_use_are_those_of_the_preprocessed_data(raw: Path) -> None:
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert dataset.open_raw_dataset("950").splits() == [{"train": ["a"], "val": ["b"]}]
    used = raw.parent.parent / "preprocessed" / raw.name
    used.mkdir()
    (used / "splits_final.json").write_text(json.dumps([{"train": ["b"], "val": ["a"]}]))
    assert dataset.open_raw_dataset("950").splits() == [{"train": ["b"], "val": ["a"]}]
    (used / "splits_final.json").write_text("{}1")
    with pytest.raises(UserError, match="holds no splits"):
        dataset.open_raw_dataset("950").splits()


def test_a_damaged_file_is_told_by_name(raw: Path) -> None:
    opened = dataset.open_raw_dataset("950")
    (raw / "labelsTr" / "a.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        opened.read_labels(raw / "labelsTr" / "a.png")


def test_folds_of_a_model_come_by_number_and_the_fold_of_all_cases_last(tmp_path: Path) -> None:
    for name in ("fold_all", "fold_10", "fold_2", "fold_0", "fold_0_old", "fold_0_0", "crossval_results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint_final.pth").touch()
    (tmp_path / "fold_2" / "checkpoint_final.pth").rename(tmp_path / "fold_2" / "checkpoint_best.pth")
    (tmp_path / "fold_7.png").touch()
    assert [path.name for path in models.fold_folders(tmp_path)] == ["fold_0", "fold_2", "fold_10", "fold_all"]
    found = models.fold_folders(tmp_path, "checkpoint_final.pth")
    assert [path.name for path in found] == ["fold_0", "fold_10", "fold_all"]


SITK = SimpleITKIO()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixdim_3": 0.0}, r"a\.nii cannot be used, its header has the voxel size 0 \(field pixdim, axis 3\); write"),
        ({"srow": (-6, 0, 0, 0, 0, -6, 1.6, 0, 0, 0, 6, 0)}, "its axes are not at right angles; resample"),
        ({"datatype": 32, "bitpix": 64}, "holds complex numbers; export one real value"),
    ],
)
def test_headers_are_believed_no_more_than_in_a_conversion(tmp_path: Path, fields: dict, message: str) -> None:
    odd_volumes.nifti(tmp_path / "a.nii", np.zeros((4, 8, 8)), **fields)
    for read in (lambda: read_images(SITK, [tmp_path / "a.nii"]), lambda: read_labels(SITK, tmp_path / "a.nii")):
        with pytest.raises(UserError, match=message):
            read()


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, ending: str, value: float) -> None:
    array = np.zeros((4, 8, 8), np.float32)
    array[0, 0, 0] = value
    write_volume(tmp_path / f"a{ending}", array)
    with pytest.raises(UserError, match="holds voxels that are no finite numbers; replace them"):
        read_images(SITK, [tmp_path / f"a{ending}"])


def test_several_label_maps_in_one_file_are_refused(tmp_path: Path) -> None:
    odd_volumes.meta_image(tmp_path / "a.mha", np.zeros((2, 4, 8, 8), np.uint8))
    assert read_images(SITK, [tmp_path / "a.mha"])[0].shape == (2, 4, 8, 8), "of an image these are channels"
    with pytest.raises(UserError, match=r"a\.mha holds 2 label maps; export one of them"):
        read_labels(SITK, tmp_path / "a.mha")
