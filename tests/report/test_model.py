"""What a model of a report is given, and when its predictions are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from reported import tiny_model

from nnunet_covid.dataset_json import GREY, WINDOW_KEY
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.raw_dataset.scan import to_8_bit
from nnunet_covid.report.model import ReportModel
from nnunet_covid.report.scans import read_scan

VALUES = np.linspace(-1400, 400, 3 * 32 * 32).astype(np.int16).reshape(3, 32, 32)
"""Hounsfield units beyond both ends of the lungs' window."""


def opened(folder: Path, *, mirroring: bool = True) -> ReportModel:
    return ReportModel(TrainedModel(folder, device="cpu", mirroring=mirroring))


def changed(folder: Path, entries: dict[str, Any]) -> Path:
    """A model with other entries in its plans."""
    path = folder / "plans.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")
    return folder


def what_it_sees(model: ReportModel, image: sitk.Image, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Arrays (1, z, y, x) that nnU-Net is given of a volume."""
    seen: list[Any] = []
    prepare = model.model.prepare_image

    def prepared(name: str, image: Any, properties: Any) -> Any:
        seen.append(image)
        return prepare(name, image, properties)

    with monkeypatch.context() as patched:
        patched.setattr(model.model, "prepare_image", prepared)
        model.label(image)
    return seen


def test_a_model_of_pictures_sees_the_grey_values_that_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", dims=2, ending=".png"), mirroring=False)
    seen = what_it_sees(model, sitk.GetImageFromArray(VALUES), monkeypatch)
    np.testing.assert_array_equal(np.concatenate(seen, axis=1)[0], to_8_bit(VALUES, -1250, 250))


@pytest.mark.parametrize(
    ("description", "foreground", "window", "said"),
    [
        ({}, {"min": -900, "max": 300}, None, ""),
        ({WINDOW_KEY: [-1000, 400.0]}, {}, (-1000, 400), "on volumes: it saw HU -1000 to 400 as grey 0 to 255."),
        ({"channel_names": {"0": GREY}}, {}, (-1250, 250), "HU -1250 to 250 .* dataset.json does not record"),
        ({"channel_names": {"0": GREY}}, {"min": 0, "max": 255}, (-1250, 250), "dataset.json does not record"),
        ({"channel_names": {"0": GREY}}, {"min": 124, "max": 1224}, None, "of a scale that is not known"),
        ({"channel_names": {"0": GREY}}, {"min": -900, "max": 200}, None, "of a scale that is not known"),
    ],
)
def test_a_model_of_volumes_sees_them_through_the_window_of_its_training_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    description: dict[str, Any],
    foreground: dict[str, float],
    window: tuple[float, float] | None,
    said: str,
) -> None:
    plans = {"foreground_intensity_properties_per_channel": {"0": foreground}}
    folder = changed(tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", **description), plans)
    model = opened(folder, mirroring=False)
    (seen,) = what_it_sees(model, sitk.GetImageFromArray(VALUES), monkeypatch)
    np.testing.assert_array_equal(seen[0], VALUES if window is None else to_8_bit(VALUES, *window))
    assert re.search(said, " ".join(model.notes))
    assert bool(model.notes) is bool(said)


def test_a_model_of_slices_in_volume_files_sees_each_alone_in_its_voxel_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net has normalised each slice by itself."""
    folder = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", dims=2, **{WINDOW_KEY: [-1250, 250]})
    model = opened(changed(folder, {"original_median_shape_after_transp": [1, 32, 32]}), mirroring=False)
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((1.5, 2.0, 5.0))
    seen = what_it_sees(model, image, monkeypatch)
    np.testing.assert_array_equal(np.concatenate(seen), to_8_bit(VALUES, -1250, 250)[:, None])
    sitk.WriteImage(image[:, :, 0], str(tmp_path / "a_0000.nii.gz"))
    given, properties = model.model.reader.read_images([str(tmp_path / "a_0000.nii.gz")])
    assert seen[0].shape == given.shape
    labels = sitk.GetArrayFromImage(model.label(image).labels)
    one = to_8_bit(given, -1250, 250).astype(np.float32)
    alone = model.model.prepare_image("a", one, properties)
    np.testing.assert_array_equal(labels[0], model.model.labels(alone, model.model.predict_logits(alone))[0])
    assert model.notes == (
        "The model was trained on slices: it saw each slice alone, HU -1250 to 250 as grey 0 to 255.",
    )


@pytest.mark.parametrize("window", [[250, -1250], [0], "ab", {"low": 0, "high": 1}, [0, float("nan")], 5])
def test_a_window_that_is_none_is_told(tmp_path: Path, window: object) -> None:
    folder = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", **{WINDOW_KEY: window})
    with pytest.raises(UserError, match="write two numbers, the lower end first"):
        opened(folder)


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
@pytest.mark.parametrize("order", ["LPS", "RAS", "ASL"])
def test_a_model_whose_reader_turns_images_sees_what_its_reader_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, order: str
) -> None:
    model = opened(tiny_model(tmp_path / "m" / "nnUNetTrainer__nnUNetPlans__3d_fullres", reader=reader))
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 400, (17, 18, 19)).astype(np.int16))
    image.SetSpacing((1.0, 2.0, 3.0))
    stored = sitk.DICOMOrient(image, order)
    sitk.WriteImage(stored, str(tmp_path / "a_0000.nii.gz"))
    given, _ = model.model.reader.read_images([str(tmp_path / "a_0000.nii.gz")])
    (seen,) = what_it_sees(model, stored, monkeypatch)
    np.testing.assert_array_equal(seen, given)
    assert model.label(stored).labels.GetDirection() == stored.GetDirection()


def test_predictions_are_compared_where_there_are_two(model: Path) -> None:
    values = np.random.default_rng(0).normal(-500, 300, (1, 16, 16, 16)).astype(np.float32)
    for axes, compared in (((0, 1, 2), True), (None, False)):
        one = opened(model)
        one.model.predictor.allowed_mirroring_axes = axes
        assert (one.observe([(values, (3.0, 3.0, 3.0))])[1].disagreement is not None) is compared


def test_a_model_and_a_scan_given_as_the_folder_one_stands_in_have_their_names(
    model: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert opened(Path(".")).facts.name == model.name
    monkeypatch.chdir(series)
    assert read_scan(Path(".")).facts.name == series.name


def test_mirroring_makes_another_model(model: Path) -> None:
    """A profile and an earlier report of the other kind are told."""
    assert opened(model).facts.digest == opened(model).facts.digest
    assert opened(model).facts.digest != opened(model, mirroring=False).facts.digest
