"""``benchmarks/gpu`` does on a CPU, with the smallest data, what it does on a card: check, time, train and score."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data_set import make_tiny_data_set

from nnunet_covid.csv_files import read_csv
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

GPU = Path(__file__).resolve().parents[2] / "benchmarks/gpu"
COMMAND = """
import multiprocessing, sys
import jobs, run
import nnunetv2.run.run_training  # once, before the jobs are forked
from nnunet_covid.cli import main
assert main(["link", "-d", "501", "--unlabelled", sys.argv.pop(1), "-c", "2d", "-np", "1"]) == 0
jobs.WARM_UP = jobs.MEASURED = 1
forked = multiprocessing.get_context("fork")
run.multiprocessing.get_context = lambda _: forked
run.PRELOADED = ()
sys.exit(run.main())
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """nnU-Net's folders with data as ``prepare.sh`` packs them: planned, pre-processed and linked, no raw images."""
    made = make_tiny_data_set(tmp_path)
    folder = made.preprocessed.rename(made.preprocessed.with_name("Dataset501_COVIDSemiSeg"))
    plans = json.loads((folder / "testPlans.json").read_text(encoding="utf-8"))
    plans |= {"dataset_name": folder.name, "plans_name": "nnUNetPlans"}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    made.raw.rename(made.raw.with_name("elsewhere"))
    own = {"nnUNet_n_proc_DA": "0", "PYTHONPATH": str(GPU), VARIABLE: str(TRAINERS_FOLDER), **made.environment()}
    return {**os.environ, **own}


def test_the_command_checks_times_trains_and_scores(environment: dict[str, str], tmp_path: Path) -> None:
    options = {
        "--parts": "check cost train",
        "--checked": "nnUNetTrainer nnUNetTrainer_consistency",
        "--timed": "InfNetTrainer pretrain:nnUNetTrainer",
        "--trainers": "nnUNetTrainer nnUNetTrainer_consistency",
        "--length": "1epochs_1its",
        **dict.fromkeys(("--check-configuration", "--cost-configuration", "--configuration"), "2d"),
        "--folds": "0",
        "--seeds": "0",
        "--device": "cpu",
        "--out": str(tmp_path / "out"),
    }
    words = [word for name, values in options.items() for word in (name, *values.split())]
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "unlabelled"), "10", *words]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", errors="replace", timeout=600
    )
    failed = tmp_path / "out/failed.log"
    assert done.returncode == 0, done.stdout + done.stderr + (failed.read_text("utf-8") if failed.exists() else "")
    tables = {file.stem: read_csv(file)[1] for file in (tmp_path / "out").glob("*.csv")}
    assert [row["equal"] for row in tables["check"]] == ["True", "True"]
    assert {row["trainer"] for row in tables["cost"]} == {"InfNetTrainer", "pretrain:nnUNetTrainer"}
    assert all(float(row["milliseconds"]) > 0 for row in tables["cost"])
    assert all(float(row["ratio"]) > 0 for row in tables["operator"])
    scored = sorted((row["trainer"], row["case"]) for row in tables["train_2d"])
    assert scored == [(name, f"case_{i}") for name in options["--trainers"].split() for i in (4, 5)]
    assert all(0 <= float(row["dice"]) <= 1 for row in tables["train_2d"])
