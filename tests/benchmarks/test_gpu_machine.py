"""``benchmarks/gpu`` on a machine lent for minutes: nothing that is done gets lost, nothing is begun in vain."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch  # every job imports it: once, before the processes are forked

from nnunet_covid.csv_files import read_csv, write_csv

REPOSITORY = Path(__file__).resolve().parents[2]
GPU = REPOSITORY / "benchmarks/gpu"
PAGE = (REPOSITORY / "docs/explanation/accuracy.md").read_text(encoding="utf-8")
Stub = Callable[[Any, str], list[dict[str, Any]]]


def training(job: Any, seconds: float = 1) -> list[dict[str, Any]]:
    """Rows as a training writes them."""
    return [{"trainer": job.trainer, **job.settings, "case": "a", "dice": 0.5, "seconds": seconds}]


def check(job: Any, device: str) -> list[dict[str, Any]]:
    return [{"trainer": job.trainer, "equal": job.trainer != "SSANetTrainer"}]


def wait_for_ever(job: Any, device: str) -> list[dict[str, Any]]:
    time.sleep(600)
    return []


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``run.py`` with processes that are there at once, trainings that take no time, and plans."""
    assert torch.__version__
    monkeypatch.syspath_prepend(GPU)
    for name in ("run", "jobs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("run")
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(module.multiprocessing, "get_context", lambda _: fork)
    monkeypatch.setattr(module, "PRELOADED", ())
    monkeypatch.setitem(sys.modules["jobs"].PARTS, "train", lambda job, _: training(job))
    monkeypatch.setitem(sys.modules["jobs"].PARTS, "check", check)
    plans = {name: {"data_identifier": f"nnUNetPlans_{name}"} for name in ("2d", "2d_half", "2d_unpacked")}
    for name in ("2d", "2d_half"):
        (tmp_path / f"preprocessed/nnUNetPlans_{name}").mkdir(parents=True)
    file = tmp_path / "preprocessed/nnUNetPlans.json"
    file.write_text(json.dumps({"configurations": plans}), encoding="utf-8")
    links = {"nnUNetPlans_2d_half": {"others": ["some"], "unlabelled": None}}
    file.with_name("nnUNetPlans_link.json").write_text(json.dumps({"version": 1, "links": links}), encoding="utf-8")
    monkeypatch.setattr(module, "PLANS", file)
    return module


@pytest.fixture
def call(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with one folder of work, whatever OUT; returns its status."""

    def status(options: str, out: str = "out", minutes: float = 1) -> int:
        places = ["--out", str(tmp_path / out), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["run.py", str(minutes), *places, *shlex.split(options)])
        return run.main()

    return status


def done_before(work: Path, jobs: list[Any], seconds: float = 70) -> None:
    work.mkdir(exist_ok=True)
    for job in jobs:
        (row,) = training(job, seconds)
        write_csv(work / f"{job.name}.csv", row, [row.values()])


def trained(table: Path) -> list[str]:
    return [f"{row['trainer']}_{row['length']}_{row['fold']}" for row in read_csv(table)[1]] if table.exists() else []


def scheduled(run: ModuleType, options: str) -> list[Any]:
    return run.schedule(run.make_parser().parse_args(["8", "--out", "OUT", *shlex.split(options)]))


def commands_of_the_page() -> list[str]:
    lines = re.findall(r"benchmarks/gpu/run\.sh 8 OUT (.*)", PAGE.replace("\\\n", " "))
    return [line.partition("#")[0] for line in lines]


def test_the_commands_of_the_page_are_those_of_the_plan(run: ModuleType) -> None:
    assert len(commands_of_the_page()) == 2
    jobs = scheduled(run, commands_of_the_page()[1])
    enlarged = "UNetPretrainedEnlargedTrainer"
    plan = [(seed, "20epochs_50its", fold, enlarged) for seed in (0, 1) for fold in range(5)]
    third = (enlarged, "nnUNetTrainer", "UNetPretrainedTrainer")
    plan += [(2, "20epochs_50its", fold, name) for fold in range(5) for name in third]
    plan += [(1, "80epochs_50its", fold, enlarged) for fold in range(5)]
    found = [(j.settings["seed"], j.settings["length"], j.settings["fold"], j.trainer) for j in jobs]
    assert found == plan
    assert all(job.part == "train" and job.settings["graph"] for job in jobs)


def test_what_is_asked_for_twice_is_done_once(run: ModuleType) -> None:
    options = (
        "--parts train compile --trainers nnUNetTrainer --folds 0 --seeds 0 --then nnUNetTrainer:20epochs_50its:0,1"
    )
    names = [job.name for job in scheduled(run, options)]
    assert len(names) == len(set(names)) == 4


def test_without_options_what_the_pack_holds_is_done_and_what_costs_most_comes_last(run: ModuleType) -> None:
    jobs = scheduled(run, "--folds 0 --seeds 0")
    costs = [job.trainer for job in jobs if job.part == "cost" and not job.settings["compile"]]
    first = [*run.FAMILIES, "nnUNetTrainer_consistency", "pretrain:nnUNetTrainer"]
    assert costs[: len(first)] == first
    assert sorted(costs) == sorted({"nnUNetTrainer", *run.TRAINERS, *first})
    settings = [(job.trainer, job.settings) for job in jobs if job.part == "train"]
    trained = [(name, each["configuration"], each["length"]) for name, each in settings]
    linked = "CollaborativeTrainer"  # at 2d_half alone
    at_2d = [(name, "2d", "80epochs_50its") for name in run.FAMILIES if name != linked]
    assert trained == [*((name, "2d_half", "20epochs_50its") for name in run.FAMILIES), *at_2d]
    assert jobs[-1].part == "cost"


def test_consistency_is_trained_beside_stock_where_unlabelled_images_are_packed(run: ModuleType) -> None:
    asked = "--parts train --folds 0 --seeds 0"
    before = [job.name for job in scheduled(run, asked)]
    link_unlabelled(run, "2d_half")
    added = [job for job in scheduled(run, asked) if job.name not in before]
    assert [(job.trainer, job.settings["configuration"]) for job in added] == [("nnUNetTrainer_consistency", "2d_half")]
    named = scheduled(run, f"{asked} --trainers nnUNetTrainer")
    assert [job.trainer for job in named] == ["nnUNetTrainer"]


def test_a_pack_with_unlabelled_images_and_no_other_disease_is_told_what_it_lacks(run: ModuleType) -> None:
    link_unlabelled(run, "2d_half", others=())
    what = "a data set of another disease linked to 2d_half is missing, for train_CollaborativeTrainer"
    assert run.lacking(scheduled(run, "")).startswith(what)
    assert not run.lacking(scheduled(run, "--trainers nnUNetTrainer nnUNetTrainer_consistency"))
    assert "link -d 501 -a 521 -c 2d_small --unlabelled" in (GPU / "prepare.sh").read_text(encoding="utf-8")


def link_unlabelled(run: ModuleType, configuration: str, others: tuple[str, ...] = ("some",)) -> None:
    folder = f"Dataset501_COVIDSemiSeg/nnUNetPlans_{configuration}_unlabelled"
    (run.PLANS.parents[1] / folder).mkdir(parents=True)
    links = {f"nnUNetPlans_{configuration}": {"others": others, "unlabelled": {"folder": folder}}}
    run.PLANS.with_name("nnUNetPlans_link.json").write_text(json.dumps({"links": links}), encoding="utf-8")


def test_further_trainings_may_have_another_plan(run: ModuleType) -> None:
    further = "--then nnUNetTrainer:80epochs_50its:1:2d --then nnUNetTrainer:80epochs_50its:1"
    jobs = scheduled(run, f"--parts train --trainers InfNetTrainer --folds 0 --seeds 0 {further}")
    assert [(job.trainer, job.settings["configuration"]) for job in jobs] == [
        ("InfNetTrainer", "2d_half"),
        ("nnUNetTrainer", "2d"),
        ("nnUNetTrainer", "2d_half"),
    ]


def test_what_is_timed_can_be_named(run: ModuleType) -> None:
    jobs = scheduled(run, "--parts cost --timed pretrain:UNetPretrainedTrainer SSANetTrainer_consistency")
    assert [job.trainer for job in jobs if job.part == "cost"] == [
        "pretrain:UNetPretrainedTrainer",
        "SSANetTrainer_consistency",
    ]


@pytest.mark.parametrize(
    ("length", "steps"),
    [("30epochs", 7500), ("20epochs_50its", 1000), ("7its", 7000), ("0epochs", 0), ("50its_20epochs", 0), ("", 0)],
)
def test_lengths_are_those_of_trainers_names(length: str, steps: int, run: ModuleType) -> None:
    assert run.steps(length) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--length 30epoch", "'30epoch': expected a length such as 30epochs or 20epochs_50its"),
        ("--length 20epochs_seed1", "'20epochs_seed1': expected a length"),
        ("--then nnUNetTrainer:20epochs", "expected such as nnUNetTrainer:80epochs_50its:0,1"),
        ("--then nnUNetTrainer:20epoch:0", "'20epoch': expected a length"),
        ("--then nnUNetTrainer:20epochs:0:2d:1", "expected such as nnUNetTrainer:80epochs_50its:0,1:2d"),
        ("--then nnUNetTrainer:20epochs:0:2d_small", "2d_small in "),
        ("--trainers InfNetTrianer", "there is no trainer InfNetTrianer"),
        ("--timed pretrain:InfNetTrianer", "there is no trainer InfNetTrianer"),
        ("--trainers pretrain:nnUNetTrainer", "there is no trainer pretrain:nnUNetTrainer"),
        (
            "--trainers SSANetTrainer_consistency",
            "a folder of unlabelled images linked to 2d_half is missing",
        ),
        ("--parts train --configuration 2d", "another disease linked to 2d is missing, for train_CollaborativeTrainer"),
        ("--parts check --check-configuration 2d_small", "2d_small in "),
        ("--configuration 2d_unpacked", "nnUNetPlans_2d_unpacked is missing, for train_nnUNetTrainer"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    options: str, message: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(options)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_length_without_iterations_is_trained(call: Callable[..., int], tmp_path: Path) -> None:
    assert call("--parts train --trainers nnUNetTrainer --folds 0 --seeds 0 --length 30epochs") == 0
    assert trained(tmp_path / "out/train_2d_half.csv") == ["nnUNetTrainer_30epochs_0"]


def test_what_is_done_reaches_every_out(run: ModuleType, call: Callable[..., int], tmp_path: Path) -> None:
    options = "--trainers nnUNetTrainer --folds 0 1 --seeds 0"
    for configuration in ("2d", "2d_half"):
        jobs = scheduled(run, f"--parts train --configuration {configuration} {options}")
        done_before(tmp_path / "work", jobs)
    assert call(f"--parts check --checked InfNetTrainer {options}", out="first") == 0
    assert call(f"--parts train {options}", out="second", minutes=0) == 0
    for out in ("first", "second"):
        for configuration in ("2d", "2d_half"):
            columns, rows = read_csv(tmp_path / f"{out}/train_{configuration}.csv")
            assert columns[:2] == ["trainer", "configuration"]
            assert [(row["configuration"], row["fold"]) for row in rows] == [(configuration, "0"), (configuration, "1")]
        assert read_csv(tmp_path / f"{out}/check.csv")[1][0]["trainer"] == "InfNetTrainer"


def test_trainings_go_on_where_an_earlier_call_ended(run: ModuleType, call: Callable[..., int], tmp_path: Path) -> None:
    options = "--parts train --trainers nnUNetTrainer --seeds 0"
    done_before(tmp_path / "work", scheduled(run, f"{options} --folds 0 2"), seconds=1)
    assert call(options) == 0
    rows = read_csv(tmp_path / "out/train_2d_half.csv")[1]
    assert [(row["fold"], row["seconds"]) for row in rows] == [(str(fold), "1") for fold in range(5)]
    logs = sorted(file.name for file in (tmp_path / "work").glob("*.log"))
    assert [name[-7] for name in logs] == ["1", "3", "4"]


def test_the_end_of_the_time_stops_what_is_at_work_and_keeps_what_is_done(
    run: ModuleType,
    call: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work, parts = run.work, sys.modules["jobs"].PARTS

    def lingering(job: Any, folder: Path, device: str) -> None:
        work(job, folder, device)
        time.sleep(600)  # as a process that gives its memory back

    monkeypatch.setattr(run, "work", lingering)
    monkeypatch.setitem(parts, "train", lambda job, _: training(job) if job.settings["fold"] else wait_for_ever(job, _))
    assert call("--parts train --trainers nnUNetTrainer --folds 0 1 --seeds 0 --cores 2", minutes=0.02) == 0
    assert trained(tmp_path / "out/train_2d_half.csv") == ["nnUNetTrainer_20epochs_50its_1"]
    stopped = re.findall("stopped at the end of the time: (.*)", capsys.readouterr().out)
    assert stopped == ["train_nnUNetTrainer_2d_half_20epochs_50its_0_0"]
    for process in multiprocessing.active_children():
        process.join(10)
        assert process.exitcode == -signal.SIGKILL


def test_the_end_of_the_time_stops_what_has_hardly_begun(
    run: ModuleType, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.os, "setsid", lambda: time.sleep(600))
    assert call("--parts train --trainers nnUNetTrainer --folds 0 --seeds 0", minutes=0.01) == 0
    for process in multiprocessing.active_children():
        process.join(10)
        assert process.exitcode == -signal.SIGKILL


def test_no_training_is_begun_that_cannot_end(
    run: ModuleType, call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["jobs"].PARTS, "train", lambda job, _: training(job, seconds=100))
    before = scheduled(run, "--parts train --trainers nnUNetTrainer SSANetTrainer --folds 0 --seeds 0")
    done_before(tmp_path / "work", before[:1], seconds=40)
    done_before(tmp_path / "work", before[1:], seconds=80)
    elsewhere = scheduled(run, "--parts train --configuration 2d --trainers CollaborativeTrainer --folds 0 --seeds 0")
    done_before(tmp_path / "work", elsewhere, seconds=1)
    longer = "--then nnUNetTrainer,InfNetTrainer,CollaborativeTrainer:80epochs_50its:0"
    shorter = "--then nnUNetTrainer,SSANetTrainer,InfNetTrainer:10epochs_50its:0"
    options = "--parts train --trainers nnUNetTrainer SSANetTrainer InfNetTrainer --folds 1 --seeds 0"
    assert call(f"{options} {longer} {shorter}") == 0
    ended = {
        *(f"{job.trainer}_20epochs_50its_0" for job in before),
        "nnUNetTrainer_20epochs_50its_1",
        "InfNetTrainer_20epochs_50its_1",  # as quick as the quickest, for all that is known
        *(f"{name}_10epochs_50its_1" for name in ("nnUNetTrainer", "SSANetTrainer", "InfNetTrainer")),
    }
    assert set(trained(tmp_path / "out/train_2d_half.csv")) == ended


def test_a_short_trial_forbids_no_training(run: ModuleType, call: Callable[..., int], tmp_path: Path) -> None:
    options = "--parts train --trainers nnUNetTrainer --folds 0 --seeds 0 --length"
    done_before(tmp_path / "work", scheduled(run, f"{options} 1epochs_2its"), seconds=20)
    assert call(f"{options} 20epochs_50its") == 0
    assert "nnUNetTrainer_20epochs_50its_0" in trained(tmp_path / "out/train_2d_half.csv")


def test_how_long_a_training_takes_is_learnt_from_those_of_the_same_call(
    call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["jobs"].PARTS, "train", lambda job, _: training(job, seconds=100))
    assert call("--parts train --trainers nnUNetTrainer --folds 0 1 2 --seeds 0 --cores 1") == 0
    assert trained(tmp_path / "out/train_2d_half.csv") == ["nnUNetTrainer_20epochs_50its_0"]


def test_what_fails_or_differs_is_named_at_the_end(
    call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(job: Any, device: str) -> list[dict[str, Any]]:
        os.write(2, b"the cable is torn")
        raise ValueError

    options = "--parts check train --checked InfNetTrainer {} --trainers nnUNetTrainer --folds 0 --seeds 0"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules["jobs"].PARTS, "train", broken)
        assert call(options.format("SSANetTrainer")) == 1
    failed, unequal = "train_nnUNetTrainer_2d_half_20epochs_50its_0_0", "check_SSANetTrainer_2d_half_False"
    assert capfd.readouterr().out.splitlines()[-1].endswith(f": {failed}, {unequal}")
    assert "the cable is torn" in (tmp_path / "out/failed.log").read_text(encoding="utf-8")
    assert len(read_csv(tmp_path / "out/check.csv")[1]) == 2
    assert call(options.format("SSANetTrainer"), out="again") == 1  # trained now, but as unequal as before
    assert capfd.readouterr().out.splitlines()[-1].endswith(f": {unequal}")
    assert call(options.format(""), out="others") == 0


class Pack:
    """A folder of archives as ``prepare.sh`` makes them, and a Python and an MPS that do as they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "content/nnunet_covid").mkdir(parents=True)
        (folder / "content/nnunet_covid/nnunet_covid_trainers.py").write_text("", encoding="utf-8")
        (folder / "content/noise").write_bytes(os.urandom(100_000))
        for name in ("site", "data"):
            subprocess.run(["tar", "-C", folder / "content", "-cJf", folder / f"{name}.tar.xz", "."], check=True)
        self.program("python", 'echo "ran $*"; exit "${STATUS:-0}"')
        self.program("nvidia-cuda-mps-control", f'[ "${{1:-}}" = -d ] || cat >>{folder}/mps_was_told')

    def program(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        places = {"PACK": self.folder, "SITE": self.folder / "machine", "PYTHON": self.folder / "python"}
        environment = {**os.environ, **{k: str(v) for k, v in places.items()}, **variables}
        environment["PATH"] = f"{self.folder}:{os.environ['PATH']}"
        command = ["bash", GPU / "run.sh", "8", self.folder / "out", "--graph"]
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return Pack(tmp_path)


@pytest.mark.parametrize("name", ["site", "data"])
def test_a_damaged_archive_ends_the_run_and_is_not_taken_for_unpacked(name: str, pack: Pack) -> None:
    file = pack.folder / f"{name}.tar.xz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        ended = pack.run()
        assert ended.returncode == 1
        assert "ran" not in ended.stdout
        assert ended.stderr.splitlines()[-1] == f"{file} cannot be unpacked: make it again with prepare.sh"
    file.write_bytes(whole)
    ended = pack.run()
    assert ended.returncode == 0
    assert f"run.py 8 --out {pack.folder}/out --work {pack.folder}/machine/jobs --graph" in ended.stdout
    file.unlink()  # unpacked once is enough
    assert pack.run().returncode == 0


@pytest.mark.parametrize("mps", ["", "1"])
@pytest.mark.parametrize("status", [0, 1])
def test_the_script_ends_as_the_measurements_do(mps: str, status: int, pack: Pack) -> None:
    assert pack.run(MPS=mps, STATUS=str(status)).returncode == status
    assert not mps or "quit" in (pack.folder / "mps_was_told").read_text(encoding="utf-8")
