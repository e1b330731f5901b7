"""What the seconds of one report went into: reading, the network, and the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up time by part of the work.

    Attributes:
        seconds: Part to ``wall`` and ``processor``: seconds by the clock, and of all threads of this process.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Count what happens in this context as time spent on a part."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            spent = self.seconds.setdefault(part, {"wall": 0.0, "processor": 0.0})
            spent["wall"] += time.perf_counter() - wall
            spent["processor"] += time.process_time() - processor

    def rounded(self) -> dict[str, dict[str, float]]:
        """To hundredths of a second."""
        return {part: {kind: round(value, 2) for kind, value in spent.items()} for part, spent in self.seconds.items()}
