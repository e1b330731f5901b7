"""The second stage's data set: which map each image gets, how it is stored, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
from image_files import LPS, blob, grey, hounsfield, read_array, write_picture, write_volume
from numpy.typing import NDArray

from nnunet_covid.cli import main
from nnunet_covid.files import replacing_folder
from nnunet_covid.guided.maps import Infection, as_channel, channel_name

CASES = ("a", "b", "c", "d")
STAGE_ONE = "Dataset001_Infection/InfNetTrainer__nnUNetPlans__2d"
GUIDED = "Dataset003_LesionsGuided"
LABELS = {"background": 0, "ground_glass": 1, "consolidation": 2, "ignore": 3}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def slices(folders: Path) -> Path:
    """Four slices with two classes, and a first stage with one prediction per slice, two per fold."""
    raw = folders / "raw/Dataset002_Lesions"
    for seed, case in enumerate(CASES):
        write_picture(raw / f"imagesTr/{case}_0000.png", grey((20, 30), seed))
        write_picture(raw / f"labelsTr/{case}.png", np.maximum(blob((20, 30), seed), blob((20, 30), seed + 9, 2)))
    write_json(raw / "dataset.json", planned.dataset_json(LABELS, numTraining=4))
    first = folders / "results" / STAGE_ONE
    write_json(first / "dataset.json", planned.dataset_json())
    for case in CASES:
        predicted = blob((20, 30), 100 + ord(case))
        validation = first / f"fold_{CASES.index(case) % 2}/validation"
        write_picture(validation / f"{case}.png", predicted)
        np.savez(validation / f"{case}.npz", probabilities=probabilities(case))
    return first


def probabilities(case: str) -> NDArray[np.float32]:
    """Above 0.5 where the label map of the first stage is."""
    noise = np.random.default_rng(ord(case)).random((1, 20, 30))
    infection = ((noise + blob((20, 30), 100 + ord(case))) / 2).astype(np.float32)
    return np.stack([1 - infection, infection])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def guide(*arguments: object) -> int:
    return main(["guide", *map(str, arguments)])


def test_maps_come_from_the_fold_that_has_not_seen_the_image(folders: Path, slices: Path) -> None:
    assert guide(2, "-m", slices) == 0
    made, source = folders / "raw" / GUIDED, folders / "raw/Dataset002_Lesions"
    for case in CASES:
        for name in (f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png"):
            assert (made / name).read_bytes() == (source / name).read_bytes()
        channel = read_array(made / f"imagesTr/{case}_0001.png")
        np.testing.assert_array_equal(channel, blob((20, 30), 100 + ord(case)))
    dataset_json = json.loads((made / "dataset.json").read_text())
    assert dataset_json["channel_names"] == {"0": "grey_ct", "1": "nonorm"}
    assert dataset_json["labels"] == LABELS
    expected = [{"train": ["b", "d"], "val": ["a", "c"]}, {"train": ["a", "c"], "val": ["b", "d"]}]
    for place in (made, folders / "preprocessed" / GUIDED):
        assert json.loads((place / "splits_final.json").read_text()) == expected
    report = json.loads((made / "guide.json").read_text())
    assert report["fold_of_map"] == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert [path for path in (folders / "raw").iterdir() if path.name.startswith(".")] == []


def test_the_first_stage_in_whose_folder_one_stands_is_named(
    folders: Path, slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(slices)
    assert guide(2, "-m", ".") == 0
    report = json.loads((folders / "raw" / GUIDED / "guide.json").read_text())
    assert report["stage_one"] == f"{slices.parent.name}/{slices.name}"


def test_maps_left_over_from_other_splits_are_not_taken(folders: Path, slices: Path) -> None:
    first = folders / "preprocessed" / slices.parent.name
    write_json(first / "splits_final.json", [{"train": ["a"], "val": ["b", "c", "d"]}, {"train": [], "val": ["a"]}])
    for case in CASES:  # now both folds have a file of every case
        for fold in range(2):
            write_picture(slices / f"fold_{fold}/validation/{case}.png", blob((20, 30), 100 * fold + ord(case)))
    assert guide(2, "-m", slices) == 0
    report = json.loads((folders / "raw" / GUIDED / "guide.json").read_text())
    assert report["fold_of_map"] == {"a": 1, "b": 0, "c": 0, "d": 0}


def test_probabilities_of_an_earlier_first_stage_are_refused(
    folders: Path, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(slices / "fold_1/validation/b.png", blob((20, 30), 7))
    assert guide(2, "-m", slices, "--map", "probability") == 2
    assert "fold_1/validation/b.npz does not belong to the label map beside it" in capsys.readouterr().err
    assert not (folders / "raw" / GUIDED).exists()


def test_probabilities_are_stored_in_255_steps_and_divided_by_nnunet(folders: Path, slices: Path) -> None:
    assert guide("Dataset002_Lesions", "-m", slices, "--map", "probability", "-d", 7, "--name", "Soft") == 0
    made = folders / "raw/Dataset007_Soft"
    for case in CASES:
        channel = read_array(made / f"imagesTr/{case}_0001.png")
        np.testing.assert_array_equal(channel, np.round(probabilities(case)[1, 0] * 255))
    assert json.loads((made / "dataset.json").read_text())["channel_names"]["1"] == "rgb_to_0_1"


def test_reference_maps_are_the_union_without_ignored_voxels(folders: Path, slices: Path) -> None:
    source = folders / "raw/Dataset002_Lesions"
    labels = read_array(source / "labelsTr/a.png").copy()
    labels[:3] = 3
    write_picture(source / "labelsTr/a.png", labels)
    folds = [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}]
    write_json(folders / "preprocessed/Dataset002_Lesions/splits_final.json", folds)
    assert guide(2, "--maps-from", "reference") == 0
    channel = read_array(folders / "raw" / GUIDED / "imagesTr/a_0001.png")
    np.testing.assert_array_equal(channel, (labels == 1) | (labels == 2))
    assert json.loads((folders / "raw" / GUIDED / "splits_final.json").read_text()) == folds


def test_volumes_keep_their_geometry_and_probabilities_their_digits(folders: Path) -> None:
    turned = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    raw, first = folders / "raw/Dataset002_Lesions", folders / "results" / STAGE_ONE
    soft = np.random.default_rng(0).random((2, 6, 8, 10)).astype(np.float32)  # two regions: they do not sum to one
    for part, array in (("imagesTr/v_0000", hounsfield((6, 8, 10), 0)), ("labelsTr/v", blob((6, 8, 10), 0))):
        write_volume(raw / f"{part}.nii.gz", array, direction=turned)
    volumes = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    write_json(raw / "dataset.json", planned.dataset_json({"background": 0, "ground_glass": 1}, **volumes))
    regions = planned.dataset_json({"background": 0, "infection": [1, 2], "consolidation": 2}, **volumes)
    write_json(first / "dataset.json", {**regions, "regions_class_order": [1, 2]})
    (first / "fold_0/validation").mkdir(parents=True)
    np.savez(first / "fold_0/validation/v.npz", probabilities=soft)
    assert guide(2, "-m", first, "--map", "probability") == 0

    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    files = [str(folders / "raw" / GUIDED / f"imagesTr/v_000{c}.nii.gz") for c in (0, 1)]
    image, properties = SimpleITKIO().read_images(files)
    np.testing.assert_allclose(image[1], soft.max(axis=0), rtol=1e-6)
    assert properties["sitk_stuff"]["direction"] == turned != LPS
    dataset_json = json.loads((folders / "raw" / GUIDED / "dataset.json").read_text())
    assert dataset_json["channel_names"] == {"0": "CT", "1": "nonorm"}


@pytest.mark.parametrize("case", ["v", "v_0001"])
def test_three_dimensional_tiff_keeps_its_spacing(folders: Path, case: str) -> None:
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    raw, first = folders / "raw/Dataset002_Lesions", folders / "results" / STAGE_ONE
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
        Tiff3DIO().write_seg(blob((4, 5, 6), 1), str(raw / part / f"{case}.tif"), {"spacing": [3.0, 0.5, 0.5]})
    (raw / f"imagesTr/{case}.tif").rename(raw / f"imagesTr/{case}_0000.tif")
    dataset_json = planned.dataset_json({"background": 0, "lesion": 1}, file_ending=".tif")
    write_json(raw / "dataset.json", {**dataset_json, "overwrite_image_reader_writer": "Tiff3DIO"})
    write_json(first / "dataset.json", dataset_json)
    (first / "fold_0/validation").mkdir(parents=True)
    np.savez(first / f"fold_0/validation/{case}.npz", probabilities=np.full((2, 4, 5, 6), 0.5, np.float32))
    assert guide(2, "-m", first, "--map", "probability") == 0
    made = folders / "raw" / GUIDED
    image, properties = Tiff3DIO().read_images([str(made / f"imagesTr/{case}_000{c}.tif") for c in (0, 1)])
    assert properties["spacing"] == [3.0, 0.5, 0.5]
    np.testing.assert_array_equal(image[0], blob((4, 5, 6), 1))
    assert (image[1] == 128).all()
    assert Tiff3DIO().read_seg(str(made / f"labelsTr/{case}.tif"))[1]["spacing"] == [3.0, 0.5, 0.5]


HEADS = np.array([[0.5, 0.1], [0.2, 0.3], [0.3, 0.6]], np.float32)


@pytest.mark.parametrize(
    ("labels", "where", "probability"),
    [
        ({"background": 0, "ggo": 1, "consolidation": 2, "ignore": 3}, [0, 1, 1, 0], HEADS[1] + HEADS[2]),
        ({"background": 0, "infection": [1, 2], "consolidation": 2}, [0, 1, 1, 0], [0.5, 0.3]),
        ({"background": 0, "left_lung": 1, "infection": 2}, [0, 0, 1, 0], HEADS[2]),
        ({"background": 0, "infection": 2, "left_lung": 1}, [0, 0, 1, 0], HEADS[2]),
        ({"background": 0, "lungs": [1, 2], "infection": 2}, [0, 0, 1, 0], HEADS[1]),
        ({"background": 0, "lungs": 1, "airways": 2}, [0, 1, 1, 0], HEADS[1] + HEADS[2]),
    ],
)
def test_what_is_infection_in_a_map(labels: dict[str, Any], where: list[int], probability: list[float]) -> None:
    """Lungs are not, beside lesions; where there is nothing else they are taken."""
    infection = Infection.among(labels)
    np.testing.assert_array_equal(infection.in_labels(np.array([0, 1, 2, 3])), np.array(where, bool))
    np.testing.assert_allclose(infection.probability(HEADS), probability)


def test_maps_on_arrays() -> None:
    np.testing.assert_array_equal(as_channel(np.array([0, 0.5, 1.0]), "probability", ".png"), [0, 128, 255])
    stored = as_channel(np.array([-1e-7, 0.5, 1.0]), "probability", ".nii.gz")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, np.array([0, 0.5, 1], np.float32))
    assert channel_name("label", ".png") == channel_name("probability", ".nii.gz") == "nonorm"


def test_a_second_run_is_told_and_leaves_the_first_alone(
    folders: Path, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = folders / "raw" / GUIDED
    with replacing_folder(target) as first:
        (first / "begun").touch()
        assert guide("2", "-m", slices) == 2
        assert f"another process is at work on {target}; wait for it" in capsys.readouterr().err
    assert [path.name for path in target.parent.iterdir() if path.name.startswith((".", GUIDED))] == [GUIDED]
    assert (target / "begun").exists()


def test_missing_maps_name_cases_and_commands(folders: Path, slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slices / "fold_1/validation/d.png").unlink()
    (slices / "fold_1/validation/b.png").unlink()
    (slices / "fold_1/checkpoint_final.pth").touch()
    (slices / "fold_all/validation").mkdir(parents=True)
    for case in CASES:
        write_picture(slices / f"fold_all/validation/{case}.png", blob((20, 30), 0))
    assert guide(2, "-m", slices) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no validation label maps of 2 cases (b, d)" in error
    assert "nnUNetv2_train Dataset001_Infection 2d 1 -tr InfNetTrainer --val;" in error
    assert "nnUNetv2_train Dataset001_Infection 2d FOLD -tr InfNetTrainer for FOLD 2, 3, 4" in error
    assert [path.name for path in (folders / "raw").iterdir()] == ["Dataset002_Lesions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([9, "-m", "STAGE"], "results; there are Dataset001_Infection, Dataset002_Lesions"),
        ([2], "name the trained first stage with -m"),
        ([2, "-m", "nowhere"], "nowhere is no trained model"),
        ([2, "-m", "STAGE", "-d", 2], "has the same number"),
        ([2, "-m", "STAGE", "-d", 1000], "not between 1 and 999"),
        ([2, "--maps-from", "reference", "--map", "probability"], "references hold no probabilities"),
        ([2, "--maps-from", "reference", "-m", "STAGE"], "leave out -m"),
        ([2, "-m", "STAGE", "--name", "../../elsewhere"], "the name '../../elsewhere' of a data set must consist of"),
    ],
)
def test_mistakes(
    folders: Path, slices: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    assert guide(*(slices if argument == "STAGE" else argument for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert [path.name for path in (folders / "raw").iterdir()] == ["Dataset002_Lesions"]


def test_a_first_stage_of_other_images_is_refused(
    folders: Path, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(slices / "dataset.json", planned.dataset_json(channel_names={"0": "CT"}))
    assert guide(2, "-m", slices) == 2
    assert "trained on the channels CT, but" in capsys.readouterr().err
    write_json(slices / "dataset.json", planned.dataset_json())
    write_picture(slices / "fold_0/validation/c.png", blob((20, 31), 0))
    assert guide(2, "-m", slices) == 2
    assert "the map of case c has (1, 20, 31) voxels" in capsys.readouterr().err
    assert [path.name for path in (folders / "raw").iterdir()] == ["Dataset002_Lesions"]
    write_picture(slices / "fold_0/validation/c.png", blob((20, 30), 0))
    assert guide(2, "-m", slices) == 0
    assert guide(3, "-m", slices) == 2
    assert "already has an infection map" in capsys.readouterr().err


def test_older_documents_call_channels_modalities(slices: Path, folders: Path) -> None:
    path = folders / "raw/Dataset002_Lesions/dataset.json"
    content = json.loads(path.read_text())
    write_json(path, {**content, "modality": content["channel_names"], "channel_names": None})
    assert guide("2", "-m", slices) == 0
    made = json.loads((folders / "raw" / GUIDED / "dataset.json").read_text())
    assert made["channel_names"] == {"0": "grey_ct", "1": "nonorm"}
    assert "modality" not in made
