"""A converted data set passes nnU-Net's own integrity check and keeps its folds through planning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chest_phantom import chest_volume, ellipse
from image_files import write_volume

from nnunet_covid.dataset_conversion import Dataset520_MSDLung
from nnunet_covid.raw_dataset import Options, SliceSelection, convert_dataset


@pytest.mark.e2e
def test_nnunet_accepts_slices_with_lung_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    for seed in range(2):
        image, lungs = chest_volume(depth=36, size=256)
        write_volume(tmp_path / f"volumes/imagesTr/lung_00{seed}.nii.gz", image.astype("int16") + seed)
        lesion = lungs & ellipse(256, 0.5, 0.3, 0.1, 0.1)
        write_volume(tmp_path / f"volumes/labelsTr/lung_00{seed}.nii.gz", lesion.astype("uint8"))
    slices = Options(lung_mask_channel=True, lung_method="threshold", slices=SliceSelection(), window=(-1250, 250))
    raw = convert_dataset(Dataset520_MSDLung.RECIPE, tmp_path / "volumes", options=slices)
    preprocessed = tmp_path / "preprocessed/Dataset520_MSDLung"

    command = shutil.which("nnUNetv2_plan_and_preprocess", path=Path(sys.executable).parent)
    assert command is not None
    arguments = ["-d", "520", "--verify_dataset_integrity", "--no_pp", "-np", "1", "-npfp", "1"]
    environment = {**os.environ, "nnUNet_def_n_proc": "1"}
    run = subprocess.run(
        [command, *arguments], env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "verify_dataset_integrity Done" in run.stdout
    assert (preprocessed / "splits_final.json").read_bytes() == (raw / "splits_final.json").read_bytes()
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["2d"]["spacing"] == pytest.approx([0.7, 0.8]), "y, x of the source"
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    assert schemes == ["ZScoreNormalization", "NoNormalization"], "the lung mask keeps its 0 and 1"
