"""SSA-Net on slices with lung masks: convert, plan, train, predict, all through the commands that people type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import io
from tiny_covid_semiseg import write_tiny_covid_semiseg
from workspace import Workspace

pytestmark = pytest.mark.e2e
DATASET = "Dataset561_COVIDSemiSeg"
TRAINER = "SSANetReweightedTrainer_1epochs_1its"


@pytest.fixture(scope="module")
def masked_slices(workspace: Workspace) -> Workspace:
    """Synthetic slices, converted with a lung mask as second channel, planned and pre-processed."""
    source = write_tiny_covid_semiseg(workspace.root / "source_with_lungs")
    convert = ["covid-semiseg", source, "-d", 561, "--lung-mask-channel", "--lung-method", "threshold"]
    workspace.run("nnunet-covid", "convert", *convert)
    workspace.plan(561, "2d", "--verify_dataset_integrity")
    return workspace


def test_slices_with_lung_masks_go_all_the_way(masked_slices: Workspace, tmp_path: Path) -> None:
    output = masked_slices.run("nnUNetv2_train", 561, "2d", 0, "-tr", TRAINER, "-device", "cpu")
    assert "class weights [" in output
    assert "Mean Validation Dice" in output
    counts = json.loads((masked_slices.preprocessed / DATASET / "class_counts_nnUNetPlans_2d.json").read_text())
    splits = json.loads((masked_slices.preprocessed / DATASET / "splits_final.json").read_text())
    assert sorted(counts) == sorted(splits[0]["train"])

    images = masked_slices.raw / DATASET / "imagesTs"
    arguments = ["-i", images, "-o", tmp_path / "out", "-d", 561, "-c", "2d", "-f", 0, "-tr", TRAINER]
    masked_slices.run("nnUNetv2_predict", *arguments, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta")
    predicted = sorted((tmp_path / "out").glob("*.png"))
    assert [p.stem for p in predicted] == sorted(p.name.removesuffix("_0001.png") for p in images.glob("*_0001.png"))
    for path in predicted:
        labels = io.imread(path)
        assert labels.shape == io.imread(images / f"{path.stem}_0000.png").shape
        assert set(np.unique(labels)) <= {0, 1}


def test_plans_from_before_the_lung_mask_end_with_one_line(masked_slices: Workspace) -> None:
    path = masked_slices.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    for key in ("normalization_schemes", "use_mask_for_norm"):
        plans["configurations"]["2d"][key] = plans["configurations"]["2d"][key][:1]
    (path.parent / "oneChannelPlans.json").write_text(json.dumps({**plans, "plans_name": "oneChannelPlans"}))
    arguments = [561, "2d", 0, "-p", "oneChannelPlans", "-tr", "SSANetTrainer", "-device", "cpu"]
    output = masked_slices.run("nnUNetv2_train", *arguments, status=2)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "promises 2 input channels" in errors[0]
    assert "Traceback" not in output
    assert not (masked_slices.results / DATASET / "SSANetTrainer__oneChannelPlans__2d").exists()
