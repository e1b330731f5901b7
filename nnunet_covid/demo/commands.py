"""Running another command of this Python environment: its output goes to a log, its progress to the person."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from nnunet_covid.errors import UserError

LAST_LINES = 12


class StepFailed(Exception):
    """A step of the demo ended with an error; the message is one line, ``last_lines`` the end of its log."""

    def __init__(self, message: str, last_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.last_lines = list(last_lines)


def console_command(name: str, *arguments: object) -> list[str]:
    """A console command of the running interpreter's environment, whatever stands on ``PATH``.

    Raises:
        UserError: If no installed package brings the command.
    """
    found = list(entry_points(group="console_scripts", name=name))
    if not found:
        raise UserError(f"the command {name} is not installed beside {sys.executable}; install nnunetv2 there")
    module, function = found[0].module, found[0].attr
    program = f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())"
    return [sys.executable, "-c", program, *map(str, arguments)]


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    shown: str,
    environment: Mapping[str, str],
    folder: Path,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        log: Receives everything the command prints; an older log is kept above it.
        shown: The command as a person would type it.
        environment: All variables.
        folder: Working directory.
        on_line: Receives every line as it comes.

    Raises:
        StepFailed: If the exit status is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LAST_LINES)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {shown}\n")
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(environment),
            cwd=folder,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    stream.write(line)
                    stream.flush()
                    if line.strip():
                        last.append(line.rstrip())
                    if on_line is not None:
                        on_line(line)
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise StepFailed(f"'{shown}' ended with status {process.returncode}; its log: {log}", last)


class EpochLines:
    """Turns nnU-Net's training log into one line per epoch."""

    _pattern = re.compile(
        r"(?:Epoch (?P<epoch>\d+)\s*$)|(?:train_loss (?P<loss>\S+))|(?:Pseudo dice \[(?P<dice>.*)\])"
        r"|(?:Epoch time: (?P<seconds>[\d.]+) s)"
    )

    def __init__(self, epochs: int, tell: Callable[[str], None]) -> None:
        self._epochs = epochs
        self._tell = tell
        self._seen: dict[str, str] = {}

    def __call__(self, line: str) -> None:
        """Read one line of the log; tell about the epoch when its last line has come."""
        match = self._pattern.search(line)
        if match is None:
            return
        self._seen.update({key: value for key, value in match.groupdict().items() if value is not None})
        if match["seconds"] is None or "epoch" not in self._seen:
            return
        number = re.search(r"\d+\.\d+", self._seen.get("dice", "").replace("float32", ""))
        dice = f"{float(number.group()):.2f}" if number else "–"
        self._tell(
            f"epoch {int(self._seen['epoch']) + 1:>3}/{self._epochs}   "
            f"training loss {self._seen.get('loss', '–')}   validation Dice {dice}   {float(match['seconds']):.0f} s"
        )
        self._seen.clear()
