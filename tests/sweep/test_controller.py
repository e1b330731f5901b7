"""What is handed over, with what settings, and what is not: submitit is replaced, claims and files are real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeping import until

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.sweep import controller as module
from nnunet_covid.sweep.claims import Queue, attempts, claim, submitted
from nnunet_covid.sweep.controller import LocalController, SlurmController, cancel, visible_gpus
from nnunet_covid.sweep.job import MARK, Job, _slurm_job, records
from nnunet_covid.sweep.plan import Sweep, make_sweep
from nnunet_covid.sweep.status import Places, survey

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")


class Executor:
    """Stands in for submitit's; every job is pending for ever."""

    def __init__(self) -> None:
        self.handed: list[tuple[Job, dict[str, Any], str]] = []
        self.settings: dict[str, Any] = {}
        self.arrays = 0
        self.refuses = False

    def update_parameters(self, **settings: Any) -> None:
        self.settings = settings

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        if self.refuses:
            raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        self.arrays += 1
        yield

    def submit(self, job: Job) -> Any:
        number = f"{self.arrays}_{len(self.handed)}" if self.arrays else str(os.getpid())
        self.handed.append((job, self.settings, number))
        paths = type("Paths", (), {"stdout": Path("log")})
        return type("Submitted", (), {"job_id": number, "paths": paths, "done": lambda self: False})()


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    found = Executor()
    monkeypatch.setattr(module, "executor", lambda *_, **__: found)
    jobs = property(lambda _: frozenset(number for _, _, number in found.handed))
    monkeypatch.setattr(Queue, "jobs", jobs)
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    return found


def a_sweep(**content: Any) -> Sweep:
    top = {"datasets": 940, "configurations": "2d", "trainers": "A", "folds": [0, 1], "device": "cpu"}
    return make_sweep("test", {**top, **content})


def with_pre_training() -> Sweep:
    return a_sweep(pretrain=[{"name": "own", "images": "."}], train=[{"pretrained": "own"}], device="cuda")


def ended(places: Places, sweep: Sweep, kind: str, status: str) -> None:
    """An attempt of a run that ended so."""
    (run,) = [run for run in sweep.runs if run.kind == kind]
    held = claim(records(places.results, run), "", Queue())
    assert held is not None
    held.close(status=status, line="it said why")


def test_slurm_is_told_what_waits_for_what(executor: Executor, places: Places) -> None:
    sweep = with_pre_training()
    SlurmController(sweep, places, tell=lambda _: None).run()
    by_run = {job.run.key: (settings, number) for job, settings, number in executor.handed}
    assert len(by_run) == len(sweep.runs) == len(executor.handed) == 6
    assert executor.arrays == 4, "preparation, pre-training, trainings that wait for the one, and for both"
    for run in sweep.runs:
        settings, _ = by_run[run.key]
        wanted = ":".join(by_run[key][1] for key in run.needs)
        assert settings["dependency"] == (f"afterok:{wanted}" if wanted else None)
        assert settings["gpus_per_node"] == (None if run.kind == "prepare" else 1)
    job = next(job for job, _, _ in executor.handed if job.run.start)
    assert job.start == places.results / job.run.needs[1] / "checkpoint_final.pth"
    assert job.environment["nnUNet_n_proc_DA"] == "7"
    awaited = {job.run.kind for job, _, _ in executor.handed if job.awaited}
    assert awaited == {"prepare", "pretrain"}
    SlurmController(sweep, places, tell=lambda _: None).run()
    assert len(executor.handed) == 6, "what is queued is not handed over again"
    assert {one.state for one in survey(sweep, places, Queue())} == {"queued"}


def test_what_needs_a_failed_run_is_not_handed_over(executor: Executor, places: Places) -> None:
    sweep, said = with_pre_training(), []
    ended(places, sweep, "prepare", "failed")
    SlurmController(sweep, places, tell=said.append).run()
    assert executor.handed == []
    assert "5 runs need what failed" in said[-1]
    SlurmController(sweep, places, tell=said.append).run(retry_failed=True)
    assert len(executor.handed) == 6


def test_a_refusal_of_slurm_is_one_line(executor: Executor, places: Places) -> None:
    executor.refuses = True
    with pytest.raises(UserError, match="SLURM refuses the jobs: sbatch: error: QOSMaxSubmitJobPerUserLimit"):
        SlurmController(a_sweep(), places).run()


def test_settings_of_the_file_reach_slurm(executor: Executor, places: Places) -> None:
    slurm = {
        "minutes": 5,
        "partition": "p",
        "account": "a",
        "setup": ["module load x"],
        "extra": {"constraint": "a100"},
    }
    SlurmController(a_sweep(slurm={**slurm, "gpus": 2, "memory_gb": 3}), places, tell=lambda _: None).run()
    settings = executor.handed[-1][1]
    for name, value in {
        "time": 5,
        "mem": "3072M",
        "gpus_per_node": 2,
        "partition": "p",
        "account": "a",
        "setup": ["module load x"],
    }.items():
        assert settings[name] == value
    assert settings["additional_parameters"] == {"constraint": "a100", "kill-on-invalid-dep": "yes"}


def test_gpus_are_shared_out(executor: Executor, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_covid.sweep.claims.is_job", lambda _: True)
    sweep = a_sweep(folds=[0, 1, 2, 3, 4])
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)
    local = LocalController(sweep, places, jobs=3, gpus=["0", "2"])
    local._hand_over(local.open(retry_failed=False), executor)
    assert [job.environment["CUDA_VISIBLE_DEVICES"] for job, _, _ in executor.handed] == ["0", "2", "0"]
    assert local._hand_over(survey(sweep, places, Queue()), executor) == [], "three are queued"


def test_another_sweep_takes_the_gpu_that_the_first_leaves_free(
    executor: Executor, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first one's run is handed over or has begun, and no longer when it has ended."""
    monkeypatch.setattr("nnunet_covid.sweep.claims.is_job", lambda pid: pid == os.getpid())
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)

    def given(trainer: str) -> str:
        local = LocalController(a_sweep(trainers=trainer, folds=0), places, gpus=["0", "1"])
        (run,) = local._hand_over(local.open(retry_failed=False), executor)
        monkeypatch.setattr("nnunet_covid.sweep.claims.is_job", lambda pid: False)  # begun, or ended
        return json.loads((records(places.results, run) / "submission.json").read_text(encoding="utf-8"))["gpu"]

    assert given("A") == "0"
    held = claim(records(places.results, a_sweep(trainers="A", folds=0).runs[1]), "", Queue())
    assert held is not None
    assert given("B") == "1"
    held.close(status="done", line="")
    assert given("C") == "0"


def test_what_is_handed_over_outlives_the_terminal(
    executor: Executor, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks off ends the whole session with SIGHUP; submitit starts its jobs in the same one."""
    begun: list[subprocess.Popen[bytes]] = []
    before = signal.getsignal(signal.SIGHUP)  # ignored already below nohup

    def submit(job: Job) -> Any:
        begun.append(subprocess.Popen(["sleep", "600"]))
        return Executor.submit(executor, job)

    monkeypatch.setattr(executor, "submit", submit)
    local = LocalController(a_sweep(), places)
    local._hand_over(local.open(retry_failed=False), executor)
    (process,) = begun
    try:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert signal.getsignal(signal.SIGHUP) == before, "the command itself ends"
    finally:
        process.kill()
        process.wait()


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-1")
    assert visible_gpus() == ["3", "MIG-1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: A'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible_gpus() == ["0", "1"]


def a_file(folder: Path) -> str:
    (folder / "s.toml").write_text(
        'datasets = 940\nconfigurations = "2d"\ntrainers = "nnUNetTrainer"\ndevice = "cpu"\n'
    )
    return str(folder / "s.toml")


def test_a_run_that_is_not_done_is_told_by_the_exit_status(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times killed it is neither done nor failed."""
    file = a_file(tmp_path)
    monkeypatch.setattr(LocalController, "run", lambda self, **_: survey(self.sweep, self.places, Queue()))
    assert main(["sweep", file]) == 1
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)
    assert main(["sweep", file, "--only-prepare"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--memory-gb 1", "--memory-gb says nothing to the executor local"),
        ("--qos long", "--qos says nothing to the executor local"),
        ("--executor slurm --gpus 0", "--gpus says nothing to the executor slurm"),
    ],
)
def test_a_flag_of_the_other_executor_is_refused(
    words: str, says: str, places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", a_file(tmp_path), *words.split()]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sweep", "table"])
def test_where_there_are_no_locks_of_posix_a_line_says_so(
    command: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nnunet_covid.cli.sweep.find_spec", lambda name: None if name == "fcntl" else name)
    assert main([command, a_file(tmp_path)]) == 2
    assert "on Windows use them in WSL" in capsys.readouterr().err


def test_a_trainer_is_known_whatever_it_starts_from(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nnU-Net being asked, which takes seconds."""
    start = tmp_path / "weights.pth"
    torch.save({"network_weights": {}}, start)
    file = a_file(tmp_path)
    with Path(file).open("a", encoding="utf-8") as stream:
        stream.write(f'[[train]]\ntrainers = "InfNetTrainer"\nplans = "wide"\npretrained = "{start}"\n')
    monkeypatch.setattr("nnunet_covid.cli.sweep._stands_written", lambda trainer: trainer == "nnUNetTrainer")
    monkeypatch.setattr("nnunet_covid.trainers.on_demand.found_by_nnunet", lambda _: None)
    monkeypatch.setattr(LocalController, "run", lambda *_, **__: [])
    assert main(["sweep", file]) == 0


def cancelled_by(places: Places, *words: str) -> set[Path]:
    """The files by which controllers and jobs learn that the sweep is cancelled."""
    before = set((places.results / ".sweep").glob("cancel_*"))
    assert main(["sweep", *words, "--cancel"]) == 0
    return set((places.results / ".sweep").glob("cancel_*")) - before


def test_cancel_reaches_what_was_started_from_this_file_and_nothing_else(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people name their files alike; one edits his after he has started the sweep."""
    watched: list[Path] = []
    monkeypatch.setattr(LocalController, "run", lambda self, **_: watched.append(self.cancelled) or [])
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        assert main(["sweep", a_file(folder)]) == 0
    (mine / "s.toml").write_text((mine / "s.toml").read_text(encoding="utf-8") + "folds = 0\n")
    monkeypatch.chdir(mine)
    assert cancelled_by(places, "s.toml") == {watched[0]}
    assert watched[0] != watched[1]


def test_cancel_reaches_the_same_flags_and_no_others(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Path] = []
    monkeypatch.setattr(LocalController, "run", lambda self, **_: watched.append(self.cancelled) or [])
    words = ["-d", "940", "-c", "2d", "-device", "cpu", "-tr"]
    for trainer, *more in (("nnUNetTrainer", "--only-prepare"), ("InfNetTrainer",)):
        assert main(["sweep", *words, trainer, *more]) == 0
    assert cancelled_by(places, *words, "nnUNetTrainer") == {watched[0]}
    assert watched[0] != watched[1]


def test_cancel_leaves_what_another_sweep_has_made_under_the_same_name(places: Places) -> None:
    theirs, mine = (
        a_sweep(pseudo_label=[{"name": "R", "strategy": "random", "images": ".", "options": o}]) for o in ("-a", "-b")
    )
    run = next(run for run in theirs.runs if run.kind == "pseudo-label")
    run.note_what_makes_it(places.results, places.preprocessed)
    (places.results / run.key / "checkpoint_best.pth").touch()
    held = claim(records(places.results, run), "", Queue())
    assert held is not None
    assert cancel(LocalController(mine, places)) == ([], [])


def test_cancel_names_what_it_has_stopped(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run is at work here, one on another machine that shares the disk, one has not begun."""
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)
    monkeypatch.setattr("nnunet_covid.sweep.claims.is_job", lambda _: True)
    monkeypatch.setattr(module, "is_job", lambda _: True)
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # inside an allocation, which is not the sweep's to cancel
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setattr(Queue, "jobs", frozenset({"77"}))
    killed: list[int] = []
    monkeypatch.setattr(module.os, "kill", lambda pid, _: killed.append(pid))
    monkeypatch.setattr(module.subprocess, "run", lambda words, **_: pytest.fail(f"{words}"))
    sweep = a_sweep(folds=[0, 1, 2])
    _, here, elsewhere, queued = sweep.runs
    for run in (here, elsewhere, queued):
        submitted(records(places.results, run), "local", "1", Path("log"))
    for run in (here, elsewhere):
        claim(records(places.results, run), _slurm_job(), Queue())
    (path,) = attempts(records(places.results, elsewhere))
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another", "host": "another"}))
    assert cancel(LocalController(sweep, places)) == ([here], [elsewhere, queued])
    assert killed == [os.getpid()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_cancel_says_of_no_run_that_it_was_stopped_whose_job_is_gone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is another process's by now, or is meant in another container; what the job has left is ended."""
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)
    sweep = a_sweep(folds=0)
    run = sweep.runs[1]
    folder = records(places.results, run)
    held = claim(folder, "", Queue())
    assert held is not None
    left = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: str(folder)}, pass_fds=(held.lock,))
    os.close(held.lock)
    killed: list[int] = []
    until(lambda: MARK.encode() in Path(f"/proc/{left.pid}/environ").read_bytes(), 10)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "kill", lambda pid, _: killed.append(pid))
        found = cancel(LocalController(sweep, places))
    left.kill()
    left.wait()
    assert found == ([], [run])
    assert killed == [left.pid]


def test_cancel_stops_jobs_of_slurm_at_once(
    executor: Executor, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = a_sweep()
    controller = SlurmController(sweep, places, tell=lambda _: None)
    controller.run()
    program = tmp_path / "scancel"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cancelled\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stopped, told = cancel(controller)
    assert (len(stopped), told) == (3, [])
    (line,) = (tmp_path / "cancelled").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()) == sorted(number for _, _, number in executor.handed)
    assert (
        json.loads((records(places.results, sweep.runs[0]) / "submission.json").read_text(encoding="utf-8"))["executor"]
        == "slurm"
    )
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/refused\nexit 1\n')
    monkeypatch.setattr(module, "ARRAY", 2)
    with pytest.raises(UserError, match=r"not every job was ended .*scancel.*--status"):
        cancel(controller)
    tried = (tmp_path / "refused").read_text(encoding="utf-8").split()
    assert sorted(tried) == sorted(line.split()), "the first refusal keeps no other job alive"
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"not every job was ended .*No such file.*scancel"):
        cancel(controller)
