"""Slices: convert, plan, train, predict a folder, all through the commands that people type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import io
from tiny_covid_semiseg import write_tiny_covid_semiseg
from workspace import Workspace

pytestmark = pytest.mark.e2e
DATASET = "Dataset501_COVIDSemiSeg"
TRAINER = "InfNetTrainer_1epochs_2its"


@pytest.fixture(scope="module")
def planned_slices(workspace: Workspace) -> Workspace:
    """Converted and pre-processed synthetic slices."""
    source = write_tiny_covid_semiseg(workspace.root / "source")
    workspace.run("nnunet-covid", "convert", "covid-semiseg", source)
    workspace.plan(501, "2d", "--verify_dataset_integrity")
    return workspace


@pytest.fixture(scope="module")
def trained_slices(planned_slices: Workspace) -> Workspace:
    planned_slices.run("nnUNetv2_train", 501, "2d", 0, "-tr", TRAINER, "-device", "cpu")
    return planned_slices


def check_predictions(folder: Path, images: Path) -> None:
    """One label map per image, of its size, background or infection; probabilities that sum to one."""
    names = sorted(p.name.removesuffix("_0000.png") for p in images.glob("*.png"))
    assert sorted(p.stem for p in folder.glob("*.png")) == names
    for name in names:
        labels = io.imread(folder / f"{name}.png")
        assert labels.shape == io.imread(images / f"{name}_0000.png").shape
        assert set(np.unique(labels)) <= {0, 1}
        maps = np.load(folder / f"{name}.npz")["probabilities"]
        np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-3)
        np.testing.assert_array_equal(maps.argmax(axis=0)[0], labels)


def test_prediction_of_a_folder_from_anywhere(trained_slices: Workspace, tmp_path: Path) -> None:
    images = trained_slices.raw / DATASET / "imagesTs"
    arguments = ["-i", images, "-o", tmp_path / "out", "-d", 501, "-c", "2d", "-f", 0, "-tr", TRAINER]
    quick = ["-device", "cpu", "-npp", 1, "-nps", 1, "--save_probabilities"]
    trained_slices.run("nnUNetv2_predict", *arguments, *quick, cwd=tmp_path)
    check_predictions(tmp_path / "out", images)


def test_plans_with_too_few_stages_end_with_one_line(planned_slices: Workspace) -> None:
    path = planned_slices.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    for key, value in kwargs.items():
        if isinstance(value, list):
            kwargs[key] = value[:2] if key == "n_conv_per_stage_decoder" else value[:3]
    kwargs["n_stages"] = 3
    (path.parent / "shallowPlans.json").write_text(json.dumps({**plans, "plans_name": "shallowPlans"}))
    output = planned_slices.run(
        "nnUNetv2_train", 501, "2d", 0, "-p", "shallowPlans", "-tr", TRAINER, "-device", "cpu", status=2
    )
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "has 3" in errors[0]
    assert "Traceback" not in output
    assert not (planned_slices.results / DATASET / f"{TRAINER}__shallowPlans__2d").exists()
