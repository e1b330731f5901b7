"""A command that needs torch starts in two thirds of the time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_held() -> Iterator[None]:
    """While much is imported, Python does not look for garbage, and at its end not through what was imported.

    That is a third of the time that the start and the end of a command with torch take. Of no effect where torch is
    imported already.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
