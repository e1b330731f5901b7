"""The real slices of COVID-SemiSeg: convert, plan, train briefly, predict the 48 test images as a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import io
from workspace import Workspace

pytestmark = [pytest.mark.e2e, pytest.mark.real_data]
DATASET = "Dataset551_COVIDSemiSeg"
TRAINER = "InfNetTrainer_1epochs_3its"


def test_real_slices_go_all_the_way(workspace: Workspace, real_data: Path, tmp_path: Path) -> None:
    source = real_data / "covid_semiseg"
    if not source.is_dir():
        pytest.skip(f"no COVID-SemiSeg: {source} does not exist")
    workspace.run("nnunet-covid", "convert", "covid-semiseg", source, "-d", 551)
    workspace.plan(551, "2d", "--verify_dataset_integrity")
    output = workspace.run("nnUNetv2_train", 551, "2d", 0, "-tr", TRAINER, "-device", "cpu")
    assert "This split has 40 training and 10 validation cases" in output
    assert "Mean Validation Dice" in output

    images = workspace.raw / DATASET / "imagesTs"
    arguments = ["-i", images, "-o", tmp_path / "out", "-d", 551, "-c", "2d", "-f", 0, "-tr", TRAINER]
    quick = ["-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta"]
    workspace.run("nnUNetv2_predict", *arguments, *quick, cwd=tmp_path)
    predicted = sorted((tmp_path / "out").glob("*.png"))
    assert len(predicted) == 48
    for path in predicted:
        labels = io.imread(path)
        assert labels.shape == io.imread(images / f"{path.stem}_0000.png").shape
        assert set(np.unique(labels)) <= {0, 1}
