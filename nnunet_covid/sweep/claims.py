"""Who is at work on a run: claims that no two processes can hold, on one machine or on several that share a disk.

Every process that begins a run makes the next ``attempt_NNNN.json`` of the run's folder, by a hard link, which either
succeeds or says that the name is taken, on NFS as well. The holder of the highest number is at work, until
``attempt_NNNN.end.json`` stands beside it or the process is gone. Whether it is gone:

- on the same machine the kernel says: the file is locked (flock) before it has its name, and the lock ends with the
  job, however that ends; where a training outlives its job (not on Linux), with the last process of the run;
- of a SLURM job the scheduler says, through ``squeue``; submitit asks ``sacct``, which answers only where a site
  keeps accounts, and late;
- of another machine without a scheduler, and of a job that the scheduler may hide (another user's, or any where a job's
  container has no ``squeue``), the file's time says, which the holder renews every half minute; it is compared with the
  file system's own clock.

A lock alone would not do: many shared file systems keep ``flock`` to one machine. A number that is never given twice
would not do without the rest: it does not say whether its holder lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import UNFINISHED, read_json, write_json
from nnunet_covid.nnunet.training_log import last_lines

SILENCE = 600.0
"""Seconds without a sign of life after which a process of another machine counts as gone."""
HEARTBEAT = 30.0
SUBMISSION = "submission.json"
OUTPUT = "output.txt"


def this_machine() -> str:
    """The same in all containers of a machine, another after it was started anew; its name where it has no such id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Queue:
    """The jobs that SLURM knows of, asked for once, when first needed."""

    @cached_property
    def jobs(self) -> frozenset[str]:
        """Ids of the jobs that are pending or running, each task of an array by itself: ``12``, ``13_0``.

        Of other users' as well, who may share the results, where the site shows them.

        Raises:
            UserError: If SLURM does not answer.
        """
        command = ["squeue", "--noheader", "--array", "--format=%i"]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
        except (OSError, subprocess.SubprocessError) as e:
            raise UserError(f"squeue cannot be asked about the jobs ({e}); go to a machine of SLURM") from e
        if done.returncode:
            raise UserError(f"SLURM does not answer ({done.stderr.strip()[:200]}); try again later")
        return frozenset(done.stdout.split())


class Claim:
    """Held while a process is at work on a run; its end is written by :meth:`close`.

    Attributes:
        path: ``attempt_NNNN.json``.
        lock: The locked file, for the processes of the run to inherit where they can outlive the job.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    def beat(self) -> None:
        """A sign of life for other machines."""
        os.utime(self.path)

    def close(self, **end: Any) -> None:
        """Say how the attempt ended, and let go; only the first time counts."""
        if self.lock >= 0:
            write_json(self.path.with_suffix(".end.json"), end)
            os.close(self.lock)
            self.lock = -1


def claim(folder: Path, job: str, queue: Queue) -> Claim | None:
    """Begin a run; ``None`` if somebody is at work on it.

    Args:
        folder: Of the run's records; made if need be.
        job: Id of the SLURM job that this process belongs to, or empty.
        queue: To ask about other jobs.

    Raises:
        UserError: If the file system has no hard links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = attempts(folder)[-1:]
    if last and alive(last[0], queue, job):
        return None
    number = number_of(last[0]) + 1 if last else 1
    unfinished = folder / f"{UNFINISHED}{this_machine()}-{os.getpid()}.attempt"
    here = {"machine": this_machine(), "host": socket.gethostname(), "pid": os.getpid(), "uid": os.getuid()}
    about = {**here, "job": job, "at": time.time()}
    unfinished.write_text(json.dumps(about), encoding="utf-8")
    lock = os.open(unfinished, os.O_RDWR)
    try:
        with suppress(OSError):  # a file system without: the file's time remains
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = folder / f"attempt_{number:04d}.json"
        os.link(unfinished, path)
        return Claim(path, lock)
    except FileExistsError:  # somebody was quicker
        os.close(lock)
        return None
    except OSError as e:
        os.close(lock)
        raise UserError(f"{folder}: no hard links here ({e.strerror}); put nnUNet_results on another disk") from e
    finally:
        unfinished.unlink(missing_ok=True)


def attempts(folder: Path) -> list[Path]:
    """The claims of a run, in their order."""
    return sorted(path for path in folder.glob("attempt_*.json") if not path.name.endswith(".end.json"))


def number_of(attempt: Path) -> int:
    """Of a claim."""
    return int(attempt.stem.removeprefix("attempt_"))


def end_of(attempt: Path) -> dict[str, Any] | None:
    """How it ended: ``status`` (done, failed, interrupted), ``line``, ``seconds``, ``memory_mib``; or ``None``."""
    return read_json(attempt.with_suffix(".end.json"))


def alive(attempt: Path, queue: Queue, own_job: str = "") -> bool:
    """Whether the process that made a claim is at work still.

    Args:
        attempt: The claim.
        queue: To ask about jobs.
        own_job: Of the process that asks: an earlier claim of the same job is of its life before a requeue.
    """
    about = read_json(attempt)
    if about is None or end_of(attempt) is not None:
        return False
    if about["machine"] == this_machine():
        return _locked(attempt)
    if about["job"]:
        if about["job"] == own_job:
            return False
        blind = bool(own_job) and shutil.which("squeue") is None  # a job in a container
        if not blind and about["job"] in queue.jobs:
            return True
        return (blind or about.get("uid", os.getuid()) != os.getuid()) and age(attempt) < SILENCE
    restarted = about["host"] == socket.gethostname() and about["machine"] != about["host"]
    return not restarted and age(attempt) < SILENCE


def _locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return age(path) < SILENCE
    finally:
        os.close(file)


def age(path: Path) -> float:
    """Seconds since a file was written or renewed, by the clock that stamps files there."""
    probe = path.with_name(f"{UNFINISHED}{this_machine()}-{os.getpid()}.clock")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now - path.stat().st_mtime


def submitted(folder: Path, executor: str, job: str, log: Path, gpu: str = "") -> None:
    """Write down that a job was handed over for a run."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "executor": executor,
        "job": job,
        "machine": this_machine(),
        "log": str(log),
        "gpu": gpu,
        "at": time.time(),
    }
    write_json(folder / SUBMISSION, {**about, "attempts": len(attempts(folder))})


def waiting_job(folder: Path, queue: Queue) -> dict[str, Any] | None:
    """The record of a job that is handed over and still to begin, or to begin anew; ``None`` if there is none."""
    about = read_json(folder / SUBMISSION)
    if about is None:
        return None
    if about["executor"] == "slurm":
        return about if about["job"] in queue.jobs else None
    begun = len(attempts(folder)) > about["attempts"]
    if about["machine"] == this_machine():
        return about if not begun and is_job(int(about["job"])) else None
    return about if not begun and age(folder / SUBMISSION) < SILENCE else None


def gpu_of_job(folder: Path) -> str:
    """What a run that is at work on this machine, or handed over here, was given; empty for any other."""
    about = read_json(folder / SUBMISSION) or {}
    if about.get("executor") != "local" or about["machine"] != this_machine():
        return ""
    last = attempts(folder)[-1:]
    at_work = bool(last) and end_of(last[0]) is None and _locked(last[0])
    return about["gpu"] if at_work or waiting_job(folder, Queue()) else ""


def is_job(pid: int) -> bool:
    """Whether a process of submitit has this number."""
    if not Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def last_line(output: Path) -> str:
    """The last line with something on it; empty if there is none."""
    try:
        return next((line.strip() for line in reversed(last_lines(output, 8192)) if line.strip()), "")
    except OSError:
        return ""
