"""What is handed over, with what settings, and what is not: submitit is replaced, claims and files are real."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.sweep import controller as module
from nnunet_covid.sweep.claims import Queue, claim
from nnunet_covid.sweep.controller import LocalController, SlurmController, cancel, visible_gpus
from nnunet_covid.sweep.job import Job, records
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
        assert settings["slurm_dependency"] == (f"afterok:{wanted}" if wanted else None)
        assert ("gpus_per_node" in settings) == (run.kind != "prepare")
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
        "timeout_min": 5,
        "mem_gb": 3,
        "gpus_per_node": 2,
        "slurm_partition": "p",
        "slurm_account": "a",
        "slurm_setup": ["module load x"],
    }.items():
        assert settings[name] == value
    assert settings["slurm_additional_parameters"] == {"constraint": "a100", "kill-on-invalid-dep": "yes"}


def test_gpus_are_shared_out(executor: Executor, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "survey", lambda *_: survey(sweep, places, Queue()))
    monkeypatch.setattr("nnunet_covid.sweep.claims._is_job", lambda _: True)
    sweep = a_sweep(folds=[0, 1, 2, 3, 4])
    monkeypatch.setattr("nnunet_covid.sweep.preparation.Preparation.finished", lambda *_: True)
    local = LocalController(sweep, places, jobs=3, gpus=["0", "2"])
    local._hand_over(local.open(retry_failed=False), executor)
    assert [job.environment["CUDA_VISIBLE_DEVICES"] for job, _, _ in executor.handed] == ["0", "2", "0"]
    assert local._hand_over(survey(sweep, places, Queue()), executor) == [], "three are queued"


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-1")
    assert visible_gpus() == ["3", "MIG-1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: A'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible_gpus() == ["0", "1"]


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
    assert len(cancel(controller)) == 3
    (line,) = (tmp_path / "cancelled").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()) == sorted(number for _, _, number in executor.handed)
    assert (
        json.loads((records(places.results, sweep.runs[0]) / "submission.json").read_text(encoding="utf-8"))["executor"]
        == "slurm"
    )
