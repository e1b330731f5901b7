"""What the doctor says of a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_covid import startup
from nnunet_covid.cli import machine
from nnunet_covid.cli.installation import Finding


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Dataset501_A"
    folder.mkdir()
    small = {"batch_size": 2, "patch_size": [10, 10]}
    large = {"batch_size": 2, "patch_size": [128, 128, 128]}
    (folder / "nnUNetPlans.json").write_text(
        json.dumps({"configurations": {"2d": small, "3d_fullres": large, "own": {"inherits_from": "2d"}}})
    )
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT", "1": "mask"}}))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return tmp_path


def found() -> dict[str, Finding]:
    return {one.subject: one for one in machine.examine_machine()}


def test_the_largest_batch_that_is_planned_counts(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.largest_planned() == ("Dataset501_A 3d_fullres", 2 * 128**3 * (2 * 4 + 3))
    monkeypatch.delenv("nnUNet_preprocessed")
    assert machine.largest_planned() == ("", 0)


def test_too_little_of_anything_is_said_with_what_to_set(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "12")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "_memory", lambda: 2 << 30)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 64 << 20}))
    monkeypatch.setattr("shutil.which", lambda name: None)
    said = found()
    assert said["cores"].remedy == "export nnUNet_n_proc_DA=3"
    assert "12 workers and batches of Dataset501_A 3d_fullres" in said["memory"].detail
    assert said["memory"].status == "note"
    assert "--shm-size" in said["/dev/shm"].remedy
    assert "none here" in said["SLURM"].detail


def test_without_workers_planning_is_said_to_fail(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    said = found()["cores"]
    assert said.status == "note"
    assert said.remedy == "before nnUNetv2_plan_and_preprocess: export nnUNet_n_proc_DA=1"


def test_enough_is_well(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "_memory", lambda: 64 << 30)
    assert {found()[name].status for name in ("cores", "memory")} == {"ok"}


def test_limits_of_a_container_count(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"cpu.max": "150000 100000", "memory.max": str(1 << 30)}
    for module in (machine, startup):
        monkeypatch.setattr(module, "container_limit", lambda file: limits[file])
    assert startup.cores() == 1
    assert machine._memory() == 1 << 30
    limits.update({"cpu.max": "max 100000", "memory.max": "max"})
    assert startup.cores() >= 1
    assert machine._memory() > 1 << 30


def test_slurm_that_answers_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'gpu* up 1-00:00:00'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "partitions gpu*" in machine._slurm().detail
    sinfo.write_text("#!/bin/sh\nexit 1\n")
    assert "does not answer" in machine._slurm().detail
