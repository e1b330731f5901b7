"""The start of a command that predicts: garbage is not looked for while torch is imported, and is afterwards."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from nnunet_covid.cli import PREDICTING
from nnunet_covid.cli.imports import imports_held

PROGRAM = """
import gc, sys
from nnunet_covid.cli.imports import imports_held
assert "torch" not in sys.modules
try:
    with imports_held():
        held = not gc.isenabled()
        import torch
        raise OSError
except OSError:
    pass
sys.exit(0 if held and gc.isenabled() and gc.get_freeze_count() > 100_000 else 1)
"""


def test_nothing_is_collected_during_the_imports_and_they_are_left_out_afterwards():
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0


def test_where_torch_is_imported_already_nothing_changes():
    import torch

    before = gc.get_freeze_count()
    with imports_held():
        assert gc.isenabled()
        assert torch.ones(1).sum() == 1
    assert gc.get_freeze_count() == before


@pytest.mark.parametrize("command", PREDICTING)
def test_threads_of_a_command_that_predicts_sleep_when_they_wait(command: str) -> None:
    program = f"""
import os, sys
from nnunet_covid.cli import build_parser
build_parser({command!r})
sys.exit(0 if os.environ["OMP_WAIT_POLICY"] == "PASSIVE" else 1)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
