"""A job, with small programs in the place of nnU-Net's."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from sweeping import until

from nnunet_covid.sweep.claims import Queue, alive, attempts, claim, end_of
from nnunet_covid.sweep.controller import Controller
from nnunet_covid.sweep.job import Job, RunFailed
from nnunet_covid.sweep.plan import make_sweep
from nnunet_covid.sweep.runs import Run
from nnunet_covid.sweep.status import Places

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIGKILL with the parent")
FINISH = """
import os, pathlib, zipfile
folder = pathlib.Path(os.environ["nnUNet_results"], *os.environ["KEY"].split("/"))
(folder / "validation").mkdir(parents=True)
(folder / "validation/summary.json").write_text("{}")
zipfile.ZipFile(folder / "checkpoint_final.pth", "w").close()
"""


def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, **settings: object) -> Job:
    run = Run("train", "Dataset940_Tiny", "2d", "A", "0", start=str(settings.pop("start", "")))
    monkeypatch.setattr(Run, "command", lambda *_: ("python", "-c", program))
    below = run.key.removeprefix(f"{run.results}/")
    return Job(run, tmp_path, tmp_path, {"KEY": below}, **settings)  # type: ignore[arg-type]


def last_end(job: Job) -> dict[str, object]:
    return end_of(attempts(job.folder)[-1]) or {}


@pytest.mark.parametrize("start", ["", "own", "weights.pth"])
def test_a_run_ends_well_in_the_results_that_are_its_own(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = job(tmp_path, monkeypatch, FINISH, start=start)
    assert done() == "done"
    assert done.finished()
    assert last_end(done)["status"] == "done"
    assert (tmp_path / (f"pretrained_{Path(start).stem}" if start else "") / "Dataset940_Tiny").is_dir()
    assert done() == "done"
    assert len(attempts(done.folder)) == 1


@pytest.mark.parametrize(
    ("program", "status", "line"),
    [
        ("print('all is lost'); raise SystemExit(3)", "failed", "all is lost"),
        ("pass", "failed", "left no finished run"),
        ("import os; os.kill(os.getpid(), 9)", "interrupted", "killed by SIGKILL"),
    ],
)
def test_how_a_run_ended_is_written_down(
    program: str, status: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match=line):
        job(tmp_path, monkeypatch, program)()
    end = last_end(job(tmp_path, monkeypatch, program))
    assert end["status"] == status
    assert line in str(end["line"])


def test_a_failure_since_the_job_was_handed_over_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "print('bad plans'); raise SystemExit(1)"
    for _ in range(2):
        with pytest.raises(RunFailed, match="bad plans"):
            job(tmp_path, monkeypatch, program)()
    assert len(attempts(job(tmp_path, monkeypatch, program).folder)) == 1
    with pytest.raises(RunFailed, match="bad plans"):
        job(tmp_path, monkeypatch, program, known=1)()
    assert len(attempts(job(tmp_path, monkeypatch, program).folder)) == 2


def test_a_job_leaves_a_run_that_somebody_is_at_work_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = job(tmp_path, monkeypatch, FINISH)
    held = claim(mine.folder, "", Queue())
    assert held is not None
    assert mine() == "somebody else is at work on it"
    held.close(status="interrupted", line="")
    assert mine() == "done"


def test_a_job_of_a_cancelled_sweep_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = tmp_path / "cancel"
    mine = job(tmp_path, monkeypatch, FINISH, cancelled=cancelled)
    cancelled.touch()
    assert mine() == "stopped by hand"
    assert last_end(mine)["status"] == "interrupted"
    cancelled.unlink()
    assert mine() == "done"


def test_a_job_at_work_ends_when_its_sweep_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a signal, which does not reach another machine."""
    monkeypatch.setattr("nnunet_covid.sweep.job.HEARTBEAT", 0.1)
    cancelled, pid = tmp_path / "cancel", tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); open({str(cancelled)!r}, 'w'); "
    mine = job(tmp_path, monkeypatch, program + "time.sleep(600)", cancelled=cancelled)
    with pytest.raises(KeyboardInterrupt):
        mine()
    assert last_end(mine)["line"] == "stopped by hand"
    assert not Path("/proc", pid.read_text(encoding="utf-8")).exists()


def test_a_disk_that_does_not_answer_for_a_moment_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_covid.sweep.job.HEARTBEAT", 0.05)
    failed = []

    def stale(*_: object, **__: object) -> None:
        failed.append(1)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    mine = job(tmp_path, monkeypatch, f"import time; time.sleep(1){FINISH}")
    monkeypatch.setattr("nnunet_covid.sweep.claims.os.utime", stale)
    assert mine() == "done"
    assert failed
    assert last_end(mine)["status"] == "done"


def test_before_the_time_limit_all_is_stopped_and_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As submitit does it: the signal calls ``checkpoint`` while the job waits."""
    program = "import os, time; open(os.environ['PID'], 'w').write(str(os.getpid())); time.sleep(600)"
    mine = job(tmp_path, monkeypatch, program)
    mine.environment["PID"] = str(tmp_path / "pid")
    again = []

    def on_signal(*_: object) -> None:
        again.append(mine.checkpoint())
        raise SystemExit(0)

    before = signal.signal(signal.SIGUSR2, on_signal)

    def send() -> None:
        while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(encoding="utf-8")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    try:
        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(SystemExit):
            mine()
        sender.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not Path("/proc", (tmp_path / "pid").read_text(encoding="utf-8")).exists()
    assert last_end(mine)["status"] == "interrupted"
    assert again[0].function is mine
    monkeypatch.setattr(Run, "command", lambda *_: ("python", "-c", FINISH))
    assert again[0].result() == "done"
    assert json.loads((mine.folder / "attempt_0002.end.json").read_text(encoding="utf-8"))["status"] == "done"


def test_workers_that_a_killed_training_has_left_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    program = (
        "import os, pathlib, subprocess\nworker = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(worker.pid))\nos.kill(os.getpid(), 9)"
    )
    with pytest.raises(RunFailed, match="killed by SIGKILL"):
        job(tmp_path, monkeypatch, program)()
    worker = Path("/proc", pid.read_text(encoding="utf-8"), "cmdline")
    until(lambda: worker.read_text(encoding="utf-8").startswith("sleep"), 10)  # empty while the kernel loads it
    assert job(tmp_path, monkeypatch, FINISH)() == "done"
    until(lambda: not worker.exists() or not worker.read_text(encoding="utf-8"), 10)


def test_a_killed_job_lets_go_of_its_run_though_workers_of_its_training_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net's workers are forked, and wait for work for ever when their training has ended with the job."""
    pid = tmp_path / "pid"
    program = (
        "import os, pathlib, time\nworker = os.fork()\n"
        f"if worker: pathlib.Path({str(pid)!r}).write_text(str(worker))\ntime.sleep(600)"
    )
    mine = job(tmp_path, monkeypatch, program)
    process = multiprocessing.get_context("fork").Process(target=mine)
    process.start()
    worker = Path("/proc", until(lambda: pid.is_file() and pid.read_text(encoding="utf-8"), 20), "cmdline")
    (attempt,) = attempts(mine.folder)
    assert alive(attempt, Queue())
    process.kill()
    process.join()
    assert not alive(attempt, Queue())
    assert worker.read_text(encoding="utf-8")
    assert job(tmp_path, monkeypatch, FINISH)() == "done"
    until(lambda: not worker.exists() or not worker.read_text(encoding="utf-8"), 10)


@pytest.mark.parametrize(("kind", "reads_the_copy"), [("train", True), ("prepare", False), ("pseudo-label", False)])
def test_what_setup_exports_on_a_node_is_kept_and_the_rest_is_the_commands(
    kind: str, reads_the_copy: bool, tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training reads the copy on the node's fast disk; what others leave in the pre-processed data is for all."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_compile", "0")
    top = {"datasets": 940, "configurations": "2d", "trainers": "A", "folds": 0, "device": "cpu"}
    rounds = {"name": "R", "strategy": "random", "images": "."}
    sweep = make_sweep("test", {**top, "pseudo_label": [rounds]})
    handed = Controller(sweep, places).job(next(run for run in sweep.runs if run.kind == kind))
    seen = tmp_path / "seen.json"
    program = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    monkeypatch.setattr(Run, "command", lambda *_: ("python", "-c", program))
    for name, value in {"nnUNet_preprocessed": "/fast", "nnUNet_results": "/fast", "nnUNet_compile": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(RunFailed, match="left no finished run"):
        handed()
    found = json.loads(seen.read_text(encoding="utf-8"))
    assert found["nnUNet_preprocessed"] == ("/fast" if reads_the_copy else str(places.preprocessed))
    assert (found["nnUNet_results"], found["nnUNet_compile"]) == (str(places.results), "1")
    assert found["nnUNet_raw"] == str(tmp_path / "nnUNet_raw"), "though the scheduler hands nothing over"
    assert found["nnUNet_n_proc_DA"] == ("1" if kind == "prepare" else "0"), "nnU-Net cannot plan with 0"


def test_a_summary_of_an_earlier_training_does_not_validate_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its last epoch and the end of its validation it is validated next time."""
    trained = FINISH.partition("(folder /")[0] + 'zipfile.ZipFile(folder / "checkpoint_final.pth", "w").close()'
    mine = job(tmp_path, monkeypatch, f"{trained}\nos.kill(os.getpid(), 9)")
    summary = tmp_path / mine.run.key / "validation/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    with pytest.raises(RunFailed, match="SIGKILL"):
        mine()
    assert not mine.finished()
    summary.write_text("{}")
    assert mine() == "done"


def test_half_a_checkpoint_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = job(tmp_path, monkeypatch, "raise SystemExit(1)")
    folder = tmp_path / mine.run.key
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "checkpoint_latest.pth", "w") as checkpoint:
        checkpoint.writestr("archive/data.pkl", b"weights" * 100)
    whole = (folder / "checkpoint_latest.pth").read_bytes()
    (folder / "checkpoint_latest.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFailed):
        mine()
    assert (folder / "checkpoint_latest.damaged").is_file()
