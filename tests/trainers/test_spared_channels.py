"""The augmentation of our trainers, and what is always changed of unlabelled images, leave masks as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from tiny_data_set import make_tiny_data_set

from nnunet_covid import trainers
from nnunet_covid.cli import main
from nnunet_covid.dataset_json import GUIDED_KEY
from nnunet_covid.trainers import InfNetTrainer

CHANNELS = {"0": "grey", "1": "second"}


@pytest.mark.parametrize(
    ("scheme", "guided", "kept"),
    [
        ("NoNormalization", {}, True),
        ("RGBTo01Normalization", {}, False),
        ("RGBTo01Normalization", {GUIDED_KEY: {}}, True),
    ],
    ids=["mask", "picture", "infection map of pictures"],
)
def test_the_second_channel_keeps_its_values(
    scheme: str, guided: dict[str, Any], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path))
    plans = planned.plans(stages=6)
    plans["configurations"]["2d"]["normalization_schemes"] = ["ZScoreNormalization", scheme]
    plans["configurations"]["2d"]["use_mask_for_norm"] = [False, False]
    data = {**planned.dataset_json(), "channel_names": CHANNELS, **guided}
    made = InfNetTrainer(plans, "2d", 0, data, torch.device("cpu"))
    augment = made.get_training_transforms((32, 32), (0.0, 0.0), None, (0, 1), False)
    values = torch.full((2, 32, 32), 0.5)
    values[:, ::2] = 1
    outside = False
    for seed in range(30):
        np.random.seed(seed)
        torch.manual_seed(seed)
        image = augment(image=values.clone(), segmentation=torch.zeros((1, 32, 32), dtype=torch.int16))["image"]
        outside = outside or bool(image[1].max() > 1.001)
    assert outside != kept


@pytest.mark.parametrize("base", ["nnUNetTrainer", "InfNetTrainer"])
def test_a_strong_view_has_the_mask_of_the_weak_one(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock nnU-Net's own batches change masks, too: those stay as they are."""
    made = make_tiny_data_set(tmp_path, masked=True, unlabelled=3)
    for name, value in {**made.environment(), "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)
    where = ["-d", "940", "-p", "testPlans", "-np", "1", "--unlabelled", str(made.unlabelled)]
    assert main(["link", *where]) == 0
    plans, data = (load_json(str(made.preprocessed / f"{name}.json")) for name in ("testPlans", "dataset"))
    kind = getattr(trainers, f"{base}_consistency")
    trainer = kind({**plans, "continue_training": False}, "2d", 0, data, torch.device("cpu"))
    trainer.initialize()
    training, _ = trainer.get_dataloaders()
    for _ in range(4):
        weak, strong = next(training)["views"].chunk(2, dim=1)
        assert not torch.allclose(weak[:, 0], strong[:, 0], atol=0.01)
        assert torch.equal(weak[:, 1], strong[:, 1])
        assert weak[:, 1].max() > 0.5
