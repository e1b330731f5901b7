"""Data that rounds run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TinyDataSet]:
    """A tiny data set in nnU-Net's folders."""

    def build(**kwargs: Any) -> TinyDataSet:
        made = make_tiny_data_set(tmp_path, **{"unlabelled": 2, **kwargs})
        variables = {"nnUNet_n_proc_DA": "0", "nnUNet_extTrainer": str(TRAINERS_FOLDER)}
        for name, value in {**made.environment(), **variables}.items():
            monkeypatch.setenv(name, value)
        return made

    return build
