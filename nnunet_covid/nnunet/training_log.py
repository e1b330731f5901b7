"""What nnU-Net's training log says of epochs: the one place that knows its lines."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

LINE = re.compile(
    r"(?:Epoch (?P<epoch>\d+)\s*$)|(?:train_loss (?P<loss>\S+))|(?:Pseudo dice \[(?P<dice>.*)\])"
    r"|(?:Epoch time: (?P<seconds>[\d.]+) s)"
)
NUMBER = re.compile(r"\d+\.\d+(?:e-\d+)?")
END = 1 << 17
"""Bytes of a log that are read: about 500 epochs."""


def mean_dice(values: str) -> float | None:
    """Mean over classes of ``np.float32(0.5), np.float32(nan)``; ``None`` where no class has a value."""
    found = [float(number) for number in NUMBER.findall(values)]
    return sum(found) / len(found) if found else None


def training_progress(folder: Path) -> dict[str, Any]:
    """Of the newest log of a fold's folder that has an epoch, which one of a validation alone has not: ``epoch``,
    ``dice`` (of the last epoch), ``seconds`` (median per epoch).

    What the log does not say is left out; of one that is longer than its end is read, what stands there.
    """
    logs = sorted(folder.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((found for log in logs if "epoch" in (found := _progress(log)) or log.stat().st_size > END), {})


def _progress(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    times: list[float] = []
    for line in last_lines(log, END):
        match = LINE.search(line)
        if match is None:
            continue
        if match["epoch"]:
            found["epoch"] = int(match["epoch"])
        if match["dice"] and (dice := mean_dice(match["dice"])) is not None:
            found["dice"] = dice
        if match["seconds"]:
            times.append(float(match["seconds"]))
    return {**found, "seconds": median(times)} if times else found


def last_lines(path: Path, size: int) -> list[str]:
    """The lines of the last bytes of a text file, so many; the first may be cut."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return stream.read().decode("utf-8", errors="replace").splitlines()
