"""Kill a command's whole group of processes at random moments, give the command again, until it is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import blosc2

from nnunet_covid.files import UNFINISHED

KILLS = int(os.environ.get("NNUNET_COVID_KILLS", "3"))
"""Of every command; 100 for the table in docs/explanation/robustness.md."""
QUIET = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "TQDM_DISABLE": "1"}
LONGEST = 600.0


class Zygote:
    """Starts commands as forks of a warm process."""

    def __init__(self) -> None:
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "killing.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **QUIET, "PYTHONPATH": path},
        )

    def start(self, run: Run, folder: Path, user: int | None = None) -> int:
        """The number of the process of a command; only root can start it as another user."""
        command = [word.replace("@", str(folder)) for word in run.command]
        environment = {name: value.replace("@", str(folder)) for name, value in run.environment.items()}
        log = str(folder.with_name(folder.name + ".log"))
        task = {"command": command, "environment": environment, "folder": str(folder), "log": log, "user": user}
        self._process.stdin.write((json.dumps(task) + "\n").encode())  # type: ignore[union-attr]
        return int(self._line())

    def ended(self, seconds: float) -> int | None:
        """The exit status; ``None`` if the process is still at work after so many seconds."""
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._line()) if readable else None

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._process.stdout.read(1)  # type: ignore[union-attr]
            assert part, "the zygote has ended"
            line += part
        return line

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


@dataclass(frozen=True)
class Run:
    """A command to kill.

    Attributes:
        name: For messages.
        command: Its words; ``@`` is the folder of one life.
        make: Fills that folder.
        result: What must be the same as after an undisturbed run.
        again: What is added to the command when it is given again.
        environment: Variables.
        whole: Checked after every kill: nothing half-written stands under a final name.
    """

    name: str
    command: tuple[str, ...]
    make: Callable[[Path], object]
    result: Callable[[Path], object]
    again: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    whole: Callable[[Path], object] = lambda folder: None


@dataclass
class Count:
    """Of one command."""

    kills: int = 0
    lives: int = 0
    seconds: float = 0.0


def kill_and_go_on(run: Run, zygote: Zygote, home: Path, kills: int = KILLS, seed: int = 0) -> Count:
    """Kill a command so often, over as many lives as that takes, and compare the end of every life.

    Raises:
        AssertionError: If a command does not go on, or its end is another than that of an undisturbed run.
    """
    expected, seconds = _undisturbed(run, zygote, home / "undisturbed")
    count, rng = Count(seconds=seconds), random.Random(seed)
    while count.kills < kills:
        folder = home / f"life_{count.lives}"
        folder.mkdir(parents=True)
        run.make(folder)
        _live(run, zygote, folder, count, rng, kills)
        found = run.result(folder)
        assert found == expected, f"{folder}: another end\n{_difference(found, expected)}"
        left = [str(path) for path in folder.rglob(f"{UNFINISHED}*")]
        assert left == [], f"left half-written: {left}"
        shutil.rmtree(folder)
        count.lives += 1
    return count


def _undisturbed(run: Run, zygote: Zygote, folder: Path) -> tuple[object, float]:
    """The result, and how long the second of two runs took: the first reads files that are not in memory yet."""
    result: object = None
    for attempt in range(2):
        place = folder.with_name(f"{folder.name}_{attempt}")
        place.mkdir(parents=True)
        run.make(place)
        start = time.monotonic()
        zygote.start(run, place)
        assert zygote.ended(LONGEST) == 0, _log(place)
        seconds = time.monotonic() - start
        found = run.result(place)
        assert attempt == 0 or found == result, f"two undisturbed runs differ\n{_difference(found, result)}"
        result = found
    return result, seconds


def _live(run: Run, zygote: Zygote, folder: Path, count: Count, rng: random.Random, kills: int) -> None:
    """One command to its end, with kills on the way."""
    once_more = run
    while True:
        process = zygote.start(once_more, folder)
        moment = rng.uniform(0.02, 1.0) * count.seconds if count.kills < kills else LONGEST
        status = zygote.ended(moment)
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # before it led a group
                os.kill(process, signal.SIGKILL)
            status = zygote.ended(LONGEST)
        if status == 0:
            return
        assert status == -signal.SIGKILL, f"exit status {status}\n{_log(folder)}"
        count.kills += 1
        run.whole(folder)
        once_more = Run(run.name, run.command + run.again, run.make, run.result, (), run.environment)


def _log(folder: Path) -> str:
    return folder.with_name(folder.name + ".log").read_text(encoding="utf-8", errors="replace")[-4000:]


def _difference(found: object, expected: object) -> str:
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return f"{found!r}\n{expected!r}"
    keys = sorted({key for key in {*found, *expected} if found.get(key) != expected.get(key)})
    return "\n".join(f"{key}: {str(found.get(key))[:300]} | {str(expected.get(key))[:300]}" for key in keys[:10])


def digests(folder: Path, home: Path | None = None) -> dict[str, str]:
    """Name to SHA-256 of every file below a folder, of pickles and pre-processed images of what they hold.

    Args:
        folder: Where to look.
        home: A folder whose name may stand in the files.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".pkl":
                content = repr(pickle.loads(content)).encode()
            if path.suffix == ".b2nd":  # its threads store the blocks in the order in which they finish
                content = blosc2.open(str(path), mode="r")[:].tobytes()
            if home is not None:
                content = content.replace(str(home).encode(), b"@")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found
