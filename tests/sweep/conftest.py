"""Helpers that can be imported, and nnU-Net's three folders with two data sets that are a name and nothing else."""

import sys
from pathlib import Path

import pytest

from nnunet_covid.sweep.status import Places

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for dataset in ("Dataset501_COVIDSemiSeg", "Dataset510_DemoCT", "Dataset940_Tiny"):
        (tmp_path / "nnUNet_preprocessed" / dataset).mkdir()
    return Places(tmp_path / "nnUNet_results", tmp_path / "nnUNet_preprocessed")
