"""What a job does, on whatever machine submitit starts it: claim a run, do its command, say how it ended.

Light: the process that waits for nnU-Net imports neither torch nor nnU-Net.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.startup import console_command
from nnunet_covid.sweep.claims import HEARTBEAT, OUTPUT, Claim, Queue, attempts, claim, end_of, last_line
from nnunet_covid.sweep.runs import FINAL, SUMMARY, Run, put_damaged_aside

STATE, RUNS = ".sweep", "runs"
"""Folder of all records, below ``nnUNet_results``, and that of runs in it: every sweep over these results shares it."""
GRACE = 10.0
"""Seconds that a process gets to end."""
PATIENCE = 10.0
"""Seconds between two looks at a run that somebody else is at work on."""
CANCELLED = "stopped by hand"
PR_SET_PDEATHSIG = 1
DIES_WITH_THE_JOB = sys.platform.startswith("linux")
"""Whether the kernel ends a training when its job ends; its workers, which it leaves, must not hold the claim then."""
MARK = "NNUNET_COVID_SWEEP_RUN"
"""Variable by which the processes of a run are known: workers of a training that was killed wait for work for ever."""
_running: dict[str, tuple[subprocess.Popen[bytes], Claim, float]] = {}
"""By key: what this process is at work on; beside the job, which submitit pickles."""


class RunFailed(Exception):
    """The command of a run ended with an error; submitit and the scheduler learn of it."""


@dataclass(frozen=True)
class Job:
    """A callable for submitit.

    Attributes:
        run: What to do.
        results: ``nnUNet_results``.
        preprocessed: ``nnUNet_preprocessed``.
        environment: Variables to set.
        start: The checkpoint to start from.
        awaited: Whether other jobs wait for this one to end: then it ends only when the run is finished.
        known: Attempts when the job was handed over; a failure since then is not tried again.
        cancelled: The file that is there when the sweep is to end.
        inherited: nnU-Net's variables as the sweep's own process had them: what has another value where the job runs
            was set there, such as by ``setup`` of the sweep file, and is kept.
    """

    run: Run
    results: Path
    preprocessed: Path
    environment: dict[str, str]
    start: Path | None = None
    awaited: bool = False
    known: int = 0
    cancelled: Path | None = None
    inherited: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """Records of the run."""
        return records(self.results, self.run)

    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.run.finished(self.results, self.preprocessed)

    def _is_cancelled(self) -> bool:
        return self.cancelled is not None and self.cancelled.exists()

    def __call__(self) -> str:
        """Do the run, unless it is done or somebody else is at work on it; what has become of it, in a word.

        Raises:
            RunFailed: If the command fails or is killed.
        """
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)  # by which a sweep on this machine is stopped
        while not self.finished():
            later = attempts(self.folder)[self.known :]
            end = end_of(later[-1]) if later else None
            if end is not None and end["status"] == "failed":
                raise RunFailed(f"another job has found: {end['line']}")
            held = claim(self.folder, _slurm_job(), Queue())
            if self._is_cancelled():  # looked at with the claim made: whoever cancels sees the one or the other
                if held is not None:
                    held.close(status="interrupted", line=CANCELLED, seconds=0.0)
                return CANCELLED
            if held is not None:
                if self.finished():  # by whoever had just let go
                    held.close(status="done", line="", seconds=0.0)
                    return "done"
                return self._work(held)
            if not self.awaited:
                return "somebody else is at work on it"
            time.sleep(PATIENCE)
        return "done"

    def _work(self, held: Claim) -> str:
        began = time.time()
        end_left_behind(self.folder)
        result = self.results / self.run.key
        for path in put_damaged_aside(result):
            print(f"{path}: half a checkpoint, of a process that was killed while it wrote")
        if not (result / FINAL).is_file():  # what is validated there is an earlier training
            (result / SUMMARY).unlink(missing_ok=True)
        self.run.note_what_makes_it(self.results, self.preprocessed)
        words = self.run.command(self.results, self.start)
        try:
            command = [sys.executable, *words[1:]] if words[0] == "python" else console_command(*words)
            with (self.folder / OUTPUT).open("ab") as output:
                output.write(f"$ {' '.join(words)}\n".encode())
                output.flush()
                child = self._start(command, output, held)
            _running[self.run.key] = child, held, began
            code = self._wait(child, held)
        except BaseException as e:
            self._stop()
            if not isinstance(e, SystemExit):  # after a checkpoint, which has said it
                line = CANCELLED if isinstance(e, KeyboardInterrupt) else str(e) or type(e).__name__
                _end(held, began, "failed" if isinstance(e, UserError) else "interrupted", line)
            raise
        del _running[self.run.key]
        done = code == 0 and self.finished()
        line = last_line(self.folder / OUTPUT)
        if code < 0:
            line = f"killed by {signal.Signals(-code).name}; its last line: {line}"
        elif code == 0 and not done:
            line = f"ended well, but left no finished run; its last line: {line}"
        _end(held, began, "done" if done else "interrupted" if code < 0 else "failed", "" if done else line)
        if not done:
            raise RunFailed(line)
        return "done"

    def _start(self, command: list[str], output: Any, held: Claim) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **self.environment,
                **self._set_here(),
                "nnUNet_results": str(self.results / self.run.results),
                MARK: str(self.folder),
            },
            start_new_session=True,
            pass_fds=() if DIES_WITH_THE_JOB else (held.lock,),
            preexec_fn=_prepared(os.getpid()),
        )

    def _set_here(self) -> dict[str, str]:
        """nnU-Net's variables as set here alone; what others than trainings pre-process or label is for all."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("nnUNet_") and (name, value) not in self.inherited
        }
        return own if self.run.kind == "train" else {**own, "nnUNet_preprocessed": str(self.preprocessed)}

    def _wait(self, child: subprocess.Popen[bytes], held: Claim) -> int:
        while True:
            try:
                return child.wait(timeout=HEARTBEAT)
            except subprocess.TimeoutExpired:
                with suppress(OSError):  # the disk does not answer just now, which is no reason to stop
                    if self._is_cancelled():
                        raise KeyboardInterrupt from None
                    held.beat()

    def checkpoint(self) -> Any:
        """Called by submitit near the time limit, or when the job is preempted: what is to be queued again."""
        from submitit.helpers import DelayedSubmission

        claimed = _running.get(self.run.key)
        self._stop()
        if claimed is not None:
            _end(claimed[1], claimed[2], "interrupted", "stopped before its time limit or for another job, begun anew")
        return DelayedSubmission(self)

    def _stop(self) -> None:
        """End the command and all that it has started."""
        child, _, _ = _running.pop(self.run.key, (None, None, None))
        if child is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            end = time.monotonic() + GRACE
            while child.poll() is None and time.monotonic() < end:
                time.sleep(0.05)


def records(results: Path, run: Run) -> Path:
    """Folder of what is known of a run beside nnU-Net's own files."""
    return results / STATE / RUNS / run.key


def _end(held: Claim, began: float, status: str, line: str) -> None:
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    held.close(status=status, line=line[:500], seconds=round(time.time() - began, 1), memory_mib=round(memory))


def _slurm_job() -> str:
    """Id of the job that this process was handed to, as ``squeue`` shows it; none of a sweep inside an allocation."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return ""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}") for part in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def end_left_behind(folder: Path) -> None:
    """Kill what an earlier, killed process of a run has started on this machine."""
    mark = f"{MARK}={folder}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone, or somebody else's
            if mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _prepared(parent: int) -> Callable[[], None]:
    """Before the command begins: it ends with the job, and leaves the scheduler's signal to the job."""
    library = ctypes.CDLL(None) if DIES_WITH_THE_JOB else None

    def prepare() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if library is not None:
            library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return prepare
