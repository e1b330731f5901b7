"""The batch files that submitit writes for SLURM."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nnunet_covid.sweep.claims import Queue
from nnunet_covid.sweep.controller import SlurmController
from nnunet_covid.sweep.plan import make_sweep
from nnunet_covid.sweep.status import Places

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs of a shell")


def test_jobs_ask_for_nothing_that_the_jobs_before_them_asked_for(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a GPU, nor to wait for other jobs."""
    programs = {"srun": "exit 1", "sbatch": f'cat "$1" > {tmp_path}/$$.sh; echo Submitted batch job $$'}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(Queue, "jobs", frozenset())
    prepared = "nnunet_covid.sweep.preparation.Preparation.finished"
    monkeypatch.setattr(prepared, lambda self, _: self.dataset == "Dataset510_DemoCT")
    grids = [{"trainers": "A", "device": "cuda"}, {"trainers": "A", "datasets": 510, "device": "cpu"}]
    sweep = make_sweep("test", {"datasets": 940, "configurations": "2d", "train": grids})
    SlurmController(sweep, places, tell=lambda _: None).run()
    files = [path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("*.sh")]
    (prepare,) = (lines for lines in files if "#SBATCH --job-name=nnunet_prepare" in lines)
    on_cpu, on_gpu = sorted((lines for lines in files if lines != prepare), key=len)
    assert "#SBATCH --gpus-per-node=1" in on_gpu
    assert any("dependency=afterok:" in line for line in on_gpu)
    for lines in (prepare, on_cpu):
        assert not [line for line in lines if "gpus" in line or "depend" in line or "-dep" in line]
    assert not [line for line in [*prepare, *on_cpu, *on_gpu] if "wckey" in line], "a site may refuse submitit's"
