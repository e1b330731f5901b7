"""The augmentation of our trainers leaves masks and infection maps as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch

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
