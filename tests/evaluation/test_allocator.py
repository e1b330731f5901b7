"""Freed memory stays with the process: filling the same large array again touches no new page."""

import ctypes
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
from nnunet_covid.evaluation.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.full(1 << 22, 1, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.full(1 << 22, 1, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)
def test_freed_memory_is_used_again() -> None:
    returned, kept = (_page_faults(how) for how in ("returned", "kept"))
    assert returned >= 100  # at least one per array, even with huge pages
    assert kept < returned / 20


def _page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], check=True, capture_output=True, text=True)
    return int(done.stdout)
