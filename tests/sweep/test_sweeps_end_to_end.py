"""Sweeps of real trainings, disturbed: here and on a SLURM that is started for it.

``NNUNET_COVID_SWEEP=all`` runs 2 trainers × 2 folds × 2 seeds; otherwise fewer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from slurm_here import slurm, why_not
from sweeping import Sweeping, key, make, until, write_plans
from tiny_data_set import DATASET

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no SIGKILL with the parent, no SLURM"),
]
LENGTH = "3epochs_1its"
ALL = os.environ.get("NNUNET_COVID_SWEEP") == "all"
TRAINERS = ("HeldTrainer", "nnUNetTrainer")
FOLDS, SEEDS = ((0, 1), (0, 1)) if ALL else ((0,), (0,))
RUNS = [key(trainer, LENGTH, seed, fold) for trainer, seed, fold in product(TRAINERS, SEEDS, FOLDS)]
HELD = [run for run in RUNS if "HeldTrainer" in run]
BAD = key("nnUNetTrainer", LENGTH, 0, 0, "badPlans")
SAYS = "Network class could not be found"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of every run, trained by nnU-Net's command alone."""
    made = make(tmp_path_factory.mktemp("undisturbed"), TRAINERS, FOLDS, SEEDS, LENGTH)
    from nnunet_covid.startup import console_command

    found = {}
    for trainer, seed, fold in product(TRAINERS, SEEDS, FOLDS):
        name = f"{trainer}_{LENGTH}_seed{seed}"
        words = (DATASET, "2d", fold, "-tr", name, "-p", "testPlans", "-device", "cpu")
        subprocess.run(console_command("nnUNetv2_train", *words), env=made.environment, check=True, capture_output=True)
        run = key(trainer, LENGTH, seed, fold)
        found[run] = made.weights(run)
    return found


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Sweeping]:
    found = make(tmp_path / "here", TRAINERS, FOLDS, SEEDS, LENGTH)
    (found.results / "hold").write_text(HELD[0])
    yield found
    (found.results / "hold").unlink(missing_ok=True)
    for run in (*RUNS, BAD):
        for claim, _ in found.attempts(run)[-1:]:
            _kill(claim["pid"])


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _held(made: Sweeping, run: str) -> bool:
    """Whether a run waits after its second epoch, with a checkpoint."""
    log = "".join(path.read_text(encoding="utf-8") for path in (made.results / run).glob("training_log*.txt"))
    return log.count("Epoch time") >= 2 and (made.results / run / "checkpoint_best.pth").is_file()


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def _check_end(made: Sweeping, undisturbed: dict[str, dict[str, torch.Tensor]]) -> None:
    for run in RUNS:
        assert made.statuses(run).count("done") == 1, (run, made.attempts(run))
        assert made.statuses(run)[-1] == "done"
        assert _same(made.weights(run), undisturbed[run]), f"{run}: other weights than undisturbed"


def test_on_this_machine(made: Sweeping, undisturbed: dict[str, dict[str, torch.Tensor]]) -> None:
    """A job killed, the controller killed, the sweep stopped, two at once, a run that fails and is mended."""
    first = made.start("--jobs", 2)
    until(lambda: _held(made, HELD[0]))
    status = made.call("--status")
    assert "running" in status
    (claim, _), *_ = made.attempts(HELD[0])
    training = int(
        subprocess.run(["pgrep", "-P", str(claim["pid"])], capture_output=True, encoding="utf-8").stdout.split()[0]
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    _kill(claim["pid"])
    until(lambda: not Path(f"/proc/{training}").exists(), 20)
    assert made.statuses(HELD[0]) == ["killed"]

    second = made.start("--jobs", 2)
    until(lambda: len(made.attempts(HELD[0])) == 2)
    assert "stopped: " in made.call("--cancel")
    assert second.wait(60) in (0, 1)
    until(lambda: made.statuses(HELD[0])[-1] == "interrupted", 20)
    assert "running" not in made.call("--status")
    (made.results / "hold").unlink()

    both = [made.start("--jobs", 1), made.start("--jobs", 1)]
    for controller in both:
        assert controller.wait(300) == 1, (made.root / "said.txt").read_text(encoding="utf-8")
    _check_end(made, undisturbed)
    assert made.statuses(HELD[0]) == ["killed", "interrupted", "done"]
    log = (made.results / f".sweep/runs/{HELD[0]}/output.txt").read_text(encoding="utf-8")
    assert log.count("--c") == 2

    assert made.statuses(BAD) == ["failed"]
    status = made.call("--status")
    assert SAYS in next(line for line in status.splitlines() if "badPlans__2d" in line)
    assert "1 failed" in status
    made.call(status=1)
    assert made.statuses(BAD) == ["failed"], "not begun again without --retry-failed"
    write_plans(made.root / "nnUNet_preprocessed" / DATASET, bad=False)
    made.call("--retry-failed")
    assert made.statuses(BAD) == ["failed", "done"]
    table = made.call("-o", "out", command="table")
    assert "nnUNetTrainer" in table
    assert (made.root / "out/table.csv").is_file()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_on_slurm(
    made: Sweeping, undisturbed: dict[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The scheduler's signal before a time limit, a job killed, a run that fails and is mended, the command killed."""
    with slurm(tmp_path_factory.mktemp("slurm")) as variables:
        made.variables.update(variables)
        words = ("--executor", "slurm", "--memory-gb", 1, "--cpus", 1)
        made.call(*words)
        until(lambda: _held(made, HELD[0]))
        for record in made.results.glob(".sweep/runs/**/submission.json"):
            if HELD[0] not in str(record):  # of which there is to be one job
                record.unlink()  # as if the command had been killed when SLURM had its jobs
        made.call(*words)
        assert "running" in made.call("--status")
        (claim, _), *_ = made.attempts(HELD[0])
        # of an array with tasks that wait it delivers the signal and tries again, as if it had not
        scancel = subprocess.Popen(["scancel", "--signal=USR2", claim["job"]], env=made.environment)
        until(lambda: made.statuses(HELD[0])[0] == "interrupted")
        scancel.kill()
        scancel.wait()
        until(lambda: len(made.attempts(HELD[0])) == 2)
        assert made.attempts(HELD[0])[1][0]["job"] == claim["job"], "queued again as the same job"
        until(lambda: _held(made, HELD[0]))
        _kill(made.attempts(HELD[0])[-1][0]["pid"])
        (made.results / "hold").unlink()
        _wait_for_jobs(made)
        made.call(*words)
        _wait_for_jobs(made)
        _check_end(made, undisturbed)
        assert made.statuses(HELD[0]) == ["interrupted", "killed", "done"]

        assert made.statuses(BAD) == ["failed"]
        assert SAYS in next(line for line in made.call("--status").splitlines() if "badPlans__2d" in line)
        write_plans(made.root / "nnUNet_preprocessed" / DATASET, bad=False)
        made.call(*words, "--retry-failed")
        _wait_for_jobs(made)
        assert made.statuses(BAD) == ["failed", "done"]
        assert "failed" not in made.call("--status")


def _wait_for_jobs(made: Sweeping) -> None:
    def none_left() -> bool:
        command = ["squeue", "--noheader", "--format=%i"]
        done = subprocess.run(command, env=made.environment, capture_output=True, encoding="utf-8", check=True)
        return not done.stdout.split()

    until(none_left, 300)
