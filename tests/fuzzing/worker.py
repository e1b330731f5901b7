"""Processes that fuzz: bounded memory, a time limit for each input, and crashes survived.

``python -m fuzzing.worker FOLDER`` reads JSON lines, each ``{"target": name, "edits": [...]}`` or ``{"target": name,
"seed": n, "examples": n}``, and answers each with one. A fork of it does the work; what is being read stands in
FOLDER/current, so that it is known after a crash.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import hypothesis
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from fuzzing.mutations import Edit, edited, edits_of
from fuzzing.targets import FAILING, TARGETS, Target
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import UnusableFile
from nnunet_covid.startup import offer_trainers

BYTES = "b64:"
MEMORY = 2 << 30
"""Bytes that a process may ask for beyond what it has after its imports."""
SECONDS = 20
"""For one input, all readers together; the machine may be busy."""
SECONDS_OF_ONE = 2.0
"""Of many inputs, on average, shrinking included; a hang that no signal interrupts ends with these."""


class Failure(Exception):
    """An input was neither read nor told in one sentence."""


class Worker:
    """Tries inputs of one target."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.good = folder / "good"
        self.place = folder / "input"
        self.counts = {"read": 0, "told": 0}
        self.last: list[Edit] = []
        self.said = ""
        shutil.rmtree(self.good, ignore_errors=True)
        self.good.mkdir(parents=True)
        target.make(self.good)
        self.content = (self.good / target.file).read_bytes()

    def attempt(self, edits: list[Edit]) -> None:
        """Read one changed input with every reader.

        Raises:
            Failure: With the traceback.
        """
        self.last = edits
        (self.folder / "current").write_text(dumped(edits))
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.good, self.place)
        (self.place / self.target.file).write_bytes(edited(self.content, edits, self.target.packing))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            for reader in self.target.readers:
                self._read(reader)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _read(self, reader: Any) -> None:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = reader(self.place)
        except (UserError, UnusableFile, SystemExit) as e:
            sentence = e.reason if isinstance(e, UnusableFile) else str(e)
            if not sentence.strip() or "Traceback" in sentence:
                raise Failure(f"no sentence: {sentence!r}") from e
            self.counts["told"] += 1
            self.said = sentence
        except BaseException as e:
            raise Failure("".join(traceback.format_exception(e)[-12:])) from e
        else:
            if "Traceback" in said.getvalue():
                raise Failure(said.getvalue())
            told = isinstance(status, int) and status in (1, 2)
            self.counts["told" if told else "read"] += 1
            self.said = said.getvalue() if told else self.said


def dumped(edits: list[Edit]) -> str:
    """Edits as JSON; bytes as base64."""
    return json.dumps([[BYTES + base64.b64encode(p).decode() if isinstance(p, bytes) else p for p in e] for e in edits])


def loaded(text: str) -> list[Edit]:
    """The edits of :func:`dumped`."""
    return [
        tuple(base64.b64decode(p[len(BYTES) :]) if isinstance(p, str) and p.startswith(BYTES) else p for p in edit)
        for edit in json.loads(text)
    ]


def explore(worker: Worker, seed: int, examples: int) -> str | None:
    """The failure of the smallest input that hypothesis finds among so many; ``None`` without one."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(edits_of(worker.target.kind))
    def property_of_any(edits: list[Edit]) -> None:
        worker.attempt(edits)

    try:
        property_of_any()
    except BaseException as e:  # what hypothesis makes of a failure that does not come again, too
        return "".join(traceback.format_exception(e)[-12:])
    return None


def answer_of(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a process of its own makes of a task: counts, and the failure with its edits."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        for descriptor in (1, 2):  # what libraries in C say
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        with open(sending, "w") as stream:
            json.dump(_work(task, folder), stream)
        os._exit(0)
    os.close(sending)
    with open(receiving) as stream:
        readable, _, _ = select.select([stream], [], [], SECONDS * 2 + task.get("examples", 1) * SECONDS_OF_ONE)
        if not readable:
            os.kill(child, signal.SIGKILL)
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if text:
        return json.loads(text)
    what = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
    failure = f"the process {what}{'' if readable else ' because it hung'}"
    edits = json.loads((folder / "current").read_text())
    return {"failure": failure, "edits": edits, "read": 0, "told": 0, "grown_mb": 0}


def _work(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    signal.signal(signal.SIGALRM, _too_long)
    tempfile.tempdir = str(folder)
    worker = Worker((TARGETS | FAILING)[task["target"]], folder)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    worker.attempt([])
    if worker.counts["told"]:
        return {"failure": f"the good input is refused: {worker.said}", "edits": [], "grown_mb": 0, **worker.counts}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failure = None
    if "seed" in task:
        failure = explore(worker, task["seed"], task["examples"])
    else:
        try:
            worker.attempt(loaded(json.dumps(task["edits"])))
        except Failure as e:
            failure = str(e)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return {"failure": failure, "edits": json.loads(dumped(worker.last)), "grown_mb": grown, **worker.counts}


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


def main() -> None:
    """Answer lines until there are no more."""
    warnings.simplefilter("ignore")
    offer_trainers()
    recursive_find_reader_writer_by_name("SimpleITKIO")  # imports the readers once for all forks
    recursive_find_trainer_class_by_name("nnUNetTrainer")
    for kind in ("binary", "text", "json"):
        hypothesis.settings(max_examples=1, database=None)(hypothesis.given(edits_of(kind))(lambda edits: None))()
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer_of(json.loads(line), folder)), flush=True)


if __name__ == "__main__":
    main()
