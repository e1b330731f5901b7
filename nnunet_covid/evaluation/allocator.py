"""Let a process keep the memory that it frees, so that the next slice finds it ready.

The C library returns large blocks to the kernel when they are freed. Scoring allocates arrays of the size of a slice
over and over, and every return costs page faults, the more so with several processes at once.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks below 1 GiB for this process; False where there is no such setting."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all(mallopt(parameter, LARGEST) == 1 for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD))
