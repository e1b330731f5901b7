"""How far a folder of predictions is, and an honest estimate of what is left.

Work is counted in bytes of the image files, because a volume takes longer than a slice; what was done before this run
began does not count, and the mean over the whole run is taken, not the last moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tqdm import tqdm

LINE_EVERY = 60.0
"""Seconds between the lines of a run whose output is no terminal."""


class Progress:
    """A bar on a terminal, else a line a minute.

    Args:
        images: To be done in this run.
        work: Bytes of their files.
        tell: Receives the lines; ``None`` for no lines.
        shown: Whether there is a bar; where the error output is a terminal if ``None``.
    """

    def __init__(
        self, images: int, work: int, tell: Callable[[str], None] | None = None, *, shown: bool | None = None
    ) -> None:
        self._images, self._work, self._tell = images, work, tell
        self._done = self._done_work = 0
        self._start = self._last = time.monotonic()
        layout = "{l_bar}{bar}| {postfix} [{elapsed}<{remaining}]"
        hidden = None if shown is None else not shown
        self._bar = tqdm(total=work, desc="predict", bar_format=layout, smoothing=0, disable=hidden)
        self._bar.set_postfix_str(f"0/{images} images")

    def advance(self, work: int) -> None:
        """An image of this many bytes is done or refused."""
        self._done += 1
        self._done_work += work
        self._bar.set_postfix_str(f"{self._done}/{self._images} images", refresh=False)
        self._bar.update(work)
        now = time.monotonic()
        if self._bar.disable and self._tell is not None and now - self._last >= LINE_EVERY:
            self._last = now
            self._tell(f"{self._done} of {self._images} images, about {in_words(self.seconds_left(now))} left")

    def seconds_left(self, now: float) -> float:
        """At the mean speed of this run."""
        return (now - self._start) * (self._work - self._done_work) / max(1, self._done_work)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def in_words(seconds: float) -> str:
    """A duration to one unit: ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
