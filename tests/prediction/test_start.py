"""The start of ``nnunet-covid predict``: garbage is not looked for while torch is imported, and is afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys

from nnunet_covid.cli.predict import _collection_held

PROGRAM = """
import gc, sys
from nnunet_covid.cli.predict import _collection_held
assert "torch" not in sys.modules
try:
    with _collection_held():
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
    with _collection_held():
        assert gc.isenabled()
        assert torch.ones(1).sum() == 1
    assert gc.get_freeze_count() == before
