"""Data sets that can be linked."""

from __future__ import annotations

import multiprocessing.dummy
from pathlib import Path

import linked
import pytest
from linked import EFFUSION


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, a planned COVID data set and a raw one with effusions."""
    # nnU-Net lists files with twelve forked processes
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", multiprocessing.dummy.Pool)
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    linked.write_covid(tmp_path / "preprocessed", linked.covid_plans())
    linked.write_pictures(tmp_path / "raw", EFFUSION)
    return tmp_path
