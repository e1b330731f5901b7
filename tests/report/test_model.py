"""What a model of a report is given, and when its predictions are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from reported import tiny_model

from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.raw_dataset.scan import to_8_bit
from nnunet_covid.report.model import ReportModel
from nnunet_covid.report.scans import read_scan


def opened(folder: Path, *, mirroring: bool = True) -> ReportModel:
    return ReportModel(TrainedModel(folder, device="cpu", mirroring=mirroring))


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
    values = np.linspace(-1400, 400, 3 * 32 * 32).astype(np.int16).reshape(3, 32, 32)
    seen = what_it_sees(model, sitk.GetImageFromArray(values), monkeypatch)
    np.testing.assert_array_equal(np.concatenate(seen, axis=1)[0], to_8_bit(values, -1250, 250))


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
