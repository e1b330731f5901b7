from __future__ import annotations

import pytest
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyDataSet:
    return make_tiny_data_set(tmp_path_factory.mktemp("tiny"), unlabelled=3)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """Set for a data set, with augmentation in this process."""

    def use(made: TinyDataSet) -> dict[str, str]:
        more = {"nnUNet_extTrainer": str(TRAINERS_FOLDER), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
        variables = {**made.environment(), **more}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return use
