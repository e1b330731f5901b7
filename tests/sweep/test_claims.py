"""No two processes at one run: claims of this machine, of others, of jobs."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.sweep.claims import SILENCE, Queue, alive, attempts, claim, submitted, this_machine, waiting_job

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
CODE = """
import sys, time
from pathlib import Path
from nnunet_covid.sweep.claims import Queue, claim
held = claim(Path(sys.argv[1]), "", Queue())
print("held" if held else "no", flush=True)
time.sleep(600)
"""


class Jobs(Queue):
    """A scheduler that knows of these jobs."""

    def __init__(self, *jobs: str) -> None:
        self.__dict__["jobs"] = frozenset(jobs)


def _race(folder: Path, start: float, results: multiprocessing.SimpleQueue[int]) -> None:
    while time.time() < start:
        pass
    held = claim(folder, "", Queue())
    results.put(held is not None)
    time.sleep(1)


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(5):
        results = context.SimpleQueue()
        start = time.time() + 0.3
        folder = tmp_path / str(number)
        processes = [context.Process(target=_race, args=(folder, start, results)) for _ in range(6)]
        for process in processes:
            process.start()
        assert sum(results.get() for _ in processes) == 1
        for process in processes:
            process.kill()
            process.join()
        assert len(attempts(folder)) == 1


def test_a_claim_ends_with_its_process_and_with_its_children(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (attempt,) = attempts(tmp_path)
    assert alive(attempt, Queue())
    assert claim(tmp_path, "", Queue()) is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not alive(attempt, Queue())
    held = claim(tmp_path, "", Queue())
    assert held is not None
    child = subprocess.Popen(["sleep", "600"], pass_fds=(held.lock,))
    os.close(held.lock)
    assert alive(held.path, Queue()), "what the process has started is at work still"
    child.kill()
    child.wait()
    assert not alive(held.path, Queue())


def test_a_claim_that_was_closed_is_over(tmp_path: Path) -> None:
    held = claim(tmp_path, "", Queue())
    assert held is not None
    held.close(status="done", line="")
    held.close(status="failed", line="")
    assert not alive(held.path, Queue())
    assert json.loads(held.path.with_suffix(".end.json").read_text(encoding="utf-8"))["status"] == "done"


def _program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``squeue``, and nothing else on the path but the system's programs."""
    folder.mkdir()
    (folder / "squeue").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")


def _elsewhere(folder: Path, **about: object) -> Path:
    path = folder / "attempt_0001.json"
    path.write_text(json.dumps({"machine": "another", "host": "node7", "pid": 1, "job": "", **about}))
    return path


def test_of_another_machine_the_scheduler_is_asked(tmp_path: Path) -> None:
    path = _elsewhere(tmp_path, job="12_3")
    assert alive(path, Jobs("12_3"))
    assert not alive(path, Jobs("12_3"), own_job="12_3"), "the same job, begun again on another node"
    assert not alive(path, Jobs()), "its node is dead"
    assert claim(tmp_path, "", Jobs("12_3")) is None
    assert claim(tmp_path, "", Jobs()) is not None


def test_jobs_of_all_users_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "bin", 'case "$*" in *--user*|*-u*|*--me*) ;; *) echo 12_3;; esac', monkeypatch)
    assert alive(_elsewhere(tmp_path, job="12_3", uid=os.getuid() + 1), Queue())


def test_where_the_jobs_of_others_are_hidden_their_signs_of_life_count(tmp_path: Path) -> None:
    theirs = _elsewhere(tmp_path, job="12_3", uid=os.getuid() + 1)
    assert alive(theirs, Jobs())
    assert claim(tmp_path, "", Jobs()) is None
    _long_silent(theirs)
    assert not alive(theirs, Jobs())
    assert not alive(_elsewhere(tmp_path, job="12_3", uid=os.getuid()), Jobs()), "one's own job is gone"


def test_a_job_whose_container_has_no_squeue_goes_by_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = _elsewhere(tmp_path, job="12_3")
    assert alive(before, Queue(), own_job="13")
    assert not alive(before, Queue(), own_job="12_3")
    _long_silent(before)
    assert claim(tmp_path, "13", Queue()) is not None
    with pytest.raises(UserError, match="go to a machine of SLURM"):  # where the command is given
        alive(before, Queue())


def test_a_claim_says_whose_it_is(tmp_path: Path) -> None:
    held = claim(tmp_path, "", Queue())
    assert held is not None
    assert json.loads(held.path.read_text(encoding="utf-8"))["uid"] == os.getuid()


def _long_silent(claim: Path) -> None:
    long_ago = time.time() - SILENCE - 5
    os.utime(claim, (long_ago, long_ago))


def test_without_a_scheduler_signs_of_life_count(tmp_path: Path) -> None:
    path = _elsewhere(tmp_path)
    assert alive(path, Queue())
    _long_silent(path)
    assert not alive(path, Queue())


def test_a_machine_that_was_started_anew_holds_nothing(tmp_path: Path) -> None:
    import socket

    assert not alive(_elsewhere(tmp_path, host=socket.gethostname()), Queue())


def test_a_job_that_was_handed_over_is_known_until_it_begins(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "submitit"])
    submitted(tmp_path, "local", str(sleeper.pid), tmp_path / "log")
    time.sleep(0.2)
    assert waiting_job(tmp_path, Queue()) is not None
    held = claim(tmp_path, "", Queue())
    assert held is not None
    assert waiting_job(tmp_path, Queue()) is None, "begun"
    submitted(tmp_path, "local", str(sleeper.pid), tmp_path / "log")
    sleeper.kill()
    sleeper.wait()
    assert waiting_job(tmp_path, Queue()) is None, "ended before it began"
    submitted(tmp_path, "slurm", "5", tmp_path / "log")
    assert waiting_job(tmp_path, Jobs("5")) is not None
    assert waiting_job(tmp_path, Jobs()) is None
    assert this_machine()
