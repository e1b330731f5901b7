"""Collaborative learning: link, train, predict a folder, draw relations, through the commands that people type."""

from __future__ import annotations

import json
from pathlib import Path

import linked
import numpy as np
import pytest
from linked import COVID, EFFUSION
from skimage import io
from workspace import Workspace

pytestmark = pytest.mark.e2e
TRAINER = "CollaborativeTrainer_2epochs_2its"


@pytest.fixture(scope="module")
def planned_data(workspace: Workspace) -> Workspace:
    """A planned COVID data set of small pictures, with a small batch, and a raw one with effusions."""
    linked.write_pictures(workspace.raw, COVID, cases=5, labels={"background": 0, "infection": 1}, size=40)
    linked.write_pictures(workspace.raw, EFFUSION, cases=3, size=40)
    workspace.plan(601, "2d")
    path = workspace.preprocessed / COVID / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"]["batch_size"] = 2
    path.write_text(json.dumps(plans))
    return workspace


def test_link_train_predict_and_draw(planned_data: Workspace, tmp_path: Path) -> None:
    run = planned_data.run
    train = ["nnUNetv2_train", 601, "2d", 0, "-tr", TRAINER, "-device", "cpu"]
    output = run(*train, status=2)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in output
    assert not planned_data.trained(COVID, TRAINER, "2d").exists()

    images = planned_data.raw / COVID / "imagesTr"
    run("nnunet-covid", "link", "-d", 601, "-a", 602, "-c", "2d", "--unlabelled", images, "--at-most", 2)
    output = run(*train)
    assert "Linked images (other): 3 of Dataset602_Effusion" in output
    assert "Mean Validation Dice" in output

    model = planned_data.trained(COVID, TRAINER, "2d")
    predict = ["nnUNetv2_predict", "-i", images, "-o", tmp_path / "out", "-d", 601, "-c", "2d", "-f", 0, "-tr", TRAINER]
    run(*predict, "-device", "cpu", "-npp", 1, "-nps", 1, cwd=tmp_path)
    predictions = sorted((tmp_path / "out").glob("*.png"))
    assert [p.stem for p in predictions] == [f"case{i}" for i in range(5)]
    assert all(set(np.unique(io.imread(p))) <= {0, 1} for p in predictions)

    run("nnunet-covid", "relations", model, "-o", tmp_path / "pictures", cwd=tmp_path)
    for name in ("general_relations", "target_relations", "relation_differences"):
        picture = io.imread(tmp_path / "pictures" / "fold_0" / f"{name}.png")
        assert picture.std() > 5
