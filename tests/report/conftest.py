"""A model, a DICOM series and its report, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_chest import box_chest
from reported import CPU, tiny_model, write_series

from nnunet_covid.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "nnUNetTrainer__nnUNetPlans__3d_fullres")


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("pacs") / "series", box_chest().image)


@pytest.fixture(scope="session")
def reported(model: Path, series: Path) -> Path:
    output = series.parent / "report"
    assert main(["report", str(series), "-m", str(model), "-o", str(output), *CPU]) == 0
    return output
