"""Which of a model's classes count as infection: by default no organ, else those that are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from box_chest import box_chest
from reported import CPU, tiny_model

from nnunet_covid.cli import main
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.folder import digest_of_model
from nnunet_covid.report.model import Labelled, Observed, ReportModel

LUNGS_AND_INFECTION = {"labels": {"background": 0, "left_lung": 1, "right_lung": 2, "infection": 3}}
REGIONS = {"labels": {"background": 0, "lungs": [1, 2, 3], "infection": 3}, "regions_class_order": [1, 3]}
ML = 1.5 * 2.0 * 2.5 / 1000
INFECTION = 6 * 30 * 25 + 2 * 10 * 10 + 1 * 5 * 10
LUNGS = 2 * 36 * 30 * 25


def opened(folder: Path, *classes: str) -> ReportModel:
    return ReportModel(TrainedModel(folder, device="cpu", mirroring=False), classes or None)


def chest_with_lungs() -> sitk.Image:
    """The label map of the box chest with the lungs beneath its lesions."""
    chest = box_chest()
    labels, lungs = (sitk.GetArrayFromImage(image) for image in (chest.labels, chest.lungs))
    side = np.where(np.arange(labels.shape[2]) < 40, 2, 1)
    found = sitk.GetImageFromArray(np.where(labels > 0, 3, lungs * side).astype(np.uint8))
    found.CopyInformation(chest.labels)
    return found


@pytest.fixture
def labels_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's answer is the box chest's own label map."""
    seen = Observed((-1000.0, -900.0, -850.0, 40.0, 40.0))
    monkeypatch.setattr(ReportModel, "label", lambda *_: Labelled(chest_with_lungs(), seen))


@pytest.mark.parametrize(
    ("description", "asked", "counted", "left_out", "voxels"),
    [
        (LUNGS_AND_INFECTION, [], ["infection"], "left_lung, right_lung", INFECTION),
        (LUNGS_AND_INFECTION, ["infection", "left_lung", "right_lung"], ["left_lung", "right_lung", "infection"], "",
         LUNGS),
        (REGIONS, [], ["infection"], "lungs", INFECTION),
        (REGIONS, ["lungs"], ["lungs"], "infection", LUNGS),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("labels_known")
def test_lungs_are_no_infection_unless_they_are_named(
    tmp_path: Path,
    series: Path,
    capsys: pytest.CaptureFixture[str],
    description: dict[str, Any],
    asked: list[str],
    counted: list[str],
    left_out: str,
    voxels: int,
) -> None:
    model = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", **description)
    sitk.WriteImage(box_chest().lungs, str(tmp_path / "lungs.nii.gz"))
    command = ["report", str(series), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]
    asked = ["--classes", *asked] if asked else []
    assert main([*command, "--lungs", str(tmp_path / "lungs.nii.gz"), *asked]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    numbers = content["quantities"]
    lungs = next(region for region in numbers["regions"] if region["name"] == "lungs")
    assert numbers["infection_ml"] == pytest.approx(voxels * ML)
    assert lungs["infection_percent"] == pytest.approx(100 * voxels / LUNGS)
    assert (numbers["severity"]["points"] == 24) is (voxels == LUNGS)
    assert content["model"]["classes"] == list(numbers["classes_ml"]) == counted
    segments = pydicom.dcmread(tmp_path / "out" / "dicom" / "segmentation.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments][:-1] == counted
    said = f"Not counted as infection: {left_out}."
    assert (said in content["scan"]["notes"]) is bool(left_out)
    assert (f"note: {said}" in capsys.readouterr().err) is bool(left_out)


@pytest.mark.parametrize(("description", "heads"), [(LUNGS_AND_INFECTION, 4), (REGIONS, 2)])
def test_the_disagreement_of_folds_is_that_on_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: dict[str, Any], heads: int
) -> None:
    """Of 1000 voxels one fold calls all lung and 10 infected, the other half of them lung and 6 infected."""
    folder = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", folds=(0, 1), **description)
    several = []
    for lung, infected in ((1000, 10), (500, 6)):
        logits = torch.full((heads, 1000), -1.0)
        logits[0] = 0.0 if heads == 4 else -1.0  # the background, where it has a head
        logits[1 if heads == 4 else 0, :lung], logits[-1, :infected] = 1.0, 2.0
        several.append([logits.reshape(heads, 10, 10, 10)])
    values = np.random.default_rng(0).normal(-500, 300, (1, 10, 10, 10)).astype(np.float32)
    for classes, expected in (((), 4 / 10), (tuple(description["labels"])[1:], 500 / 1000)):
        model = opened(folder, *classes)
        monkeypatch.setattr(model.model, "fold_logits", lambda _: several)
        assert model.observe([(values, (3.0, 3.0, 3.0))])[1].disagreement == pytest.approx(expected)


def test_what_is_left_out_makes_another_model_and_nothing_left_out_the_same(tmp_path: Path, model: Path) -> None:
    """A profile and a batch made with other classes are told; those made before stay."""
    folder = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", **LUNGS_AND_INFECTION)
    everything = opened(folder, "infection", "right_lung", "left_lung")
    assert everything.facts.digest == digest_of_model(everything.model) != opened(folder).facts.digest
    assert opened(folder, "infection").facts.digest == opened(folder).facts.digest
    assert opened(model).facts.digest == digest_of_model(opened(model).model)
