"""Volumes with regions and an ignore label, in 3D, and a cascade."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from workspace import Workspace

pytestmark = pytest.mark.e2e
DATASET = "Dataset901_Regions"
TRAINER = "InfNetTrainer_1epochs_1its"


@pytest.fixture(scope="module")
def volumes(workspace: Workspace) -> Workspace:
    """Six noisy volumes with two overlapping regions; part of one label is to be ignored."""
    rng = np.random.default_rng(0)
    folder = workspace.raw / DATASET
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for case in range(6):
        labels = np.zeros((34, 36, 40), np.uint8)
        labels[8:24, 8:26, 8:30] = 1
        labels[12:20, 12:20, 12:20] = 2
        image = labels * 200.0 - 700 + rng.normal(0, 60, labels.shape)
        labels[:4] = 3
        write(image.astype(np.int16), folder / "imagesTr" / f"case_{case}_0000.nii.gz")
        write(labels, folder / "labelsTr" / f"case_{case}.nii.gz")
        if case == 0:
            write(image.astype(np.int16), folder / "imagesTs" / "test_0_0000.nii.gz")
    labels = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": labels,
                "regions_class_order": [1, 2],
                "numTraining": 6,
                "file_ending": ".nii.gz",
            }
        )
    )
    workspace.plan(901, "3d_fullres")
    return workspace


def write(array: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 2.0))
    sitk.WriteImage(image, str(path))


def test_regions_with_an_ignore_label_in_3d(volumes: Workspace, tmp_path: Path) -> None:
    volumes.run("nnUNetv2_train", 901, "3d_fullres", 0, "-tr", TRAINER, "-device", "cpu")
    images = volumes.raw / DATASET / "imagesTs"
    arguments = ["-i", images, "-o", tmp_path, "-d", 901, "-c", "3d_fullres", "-f", 0, "-tr", TRAINER]
    volumes.run("nnUNetv2_predict", *arguments, "-device", "cpu", "-npp", 1, "-nps", 1, "--save_probabilities")
    labels = sitk.ReadImage(str(tmp_path / "test_0.nii.gz"))
    assert labels.GetSize() == (40, 36, 34)
    assert labels.GetSpacing() == (1.5, 1.5, 2.0)
    probabilities = np.load(tmp_path / "test_0.npz")["probabilities"]
    assert probabilities.shape == (2, 34, 36, 40)
    expected = np.zeros((34, 36, 40))
    for region, value in enumerate((1, 2)):
        expected[probabilities[region] > 0.5] = value
    assert (sitk.GetArrayFromImage(labels) == expected).mean() > 0.999


def test_a_cascade_feeds_the_first_stage_to_the_second(volumes: Workspace) -> None:
    path = volumes.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_lowres"] = {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"}
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    path.write_text(json.dumps(plans))
    # fold "all" predicts every case for the next stage
    volumes.run("nnUNetv2_train", 901, "3d_lowres", "all", "-tr", TRAINER, "-device", "cpu")
    folder = volumes.trained(DATASET, TRAINER, "3d_lowres") / "predicted_next_stage" / "3d_cascade_fullres"
    assert len(list(folder.iterdir())) == 6
    volumes.run("nnUNetv2_train", 901, "3d_cascade_fullres", 0, "-tr", TRAINER, "-device", "cpu")
    summary = volumes.trained(DATASET, TRAINER, "3d_cascade_fullres") / "fold_0" / "validation" / "summary.json"
    assert summary.is_file()
