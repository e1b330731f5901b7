"""Fixtures that every part of the tests may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_covid.checkpoint import release_process
from nnunet_covid.startup import offer_trainers

# several test processes share the cores; read by torch when it is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# read by nnU-Net when it is first imported
os.environ.setdefault("nnUNet_def_n_proc", "1")
# the first model that is opened does this for the whole process, and which test that is changes from run to run
offer_trainers()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that use it carry the marker ``real_data`` and skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NNUNET_COVID_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist, set NNUNET_COVID_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    """A trainer never trained leaves this process reading checkpoints restrictedly, ``predict`` with other threads."""
    yield
    release_process()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
