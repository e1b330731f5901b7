"""A tiny data set with two folds, a sweep of it, and the command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny_data_set import DATASET, make_tiny_data_set

from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE, console_command

HERE = Path(__file__).parent
RECORDS = ".sweep/runs"


@dataclass
class Sweeping:
    """nnU-Net's folders below ``root``, and processes on them.

    Attributes:
        variables: Beside nnU-Net's.
    """

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results"

    @property
    def environment(self) -> dict[str, str]:
        folders = {name: str(self.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        single = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "NNUNET_COVID_QUICK": "1"}
        paths = {
            "PYTHONPATH": str(HERE / "quick"),
            VARIABLE: os.pathsep.join([str(HERE / "own_trainers"), str(TRAINERS_FOLDER)]),
        }
        return {**os.environ, **folders, **single, **paths, **self.variables}

    def start(self, *words: object) -> subprocess.Popen[str]:
        """``nnunet-covid sweep sweep.toml``, begun; what it says goes to a file."""
        command = console_command("nnunet-covid", "sweep", "sweep.toml", *words)
        with (self.root / "said.txt").open("a", encoding="utf-8") as said:
            return subprocess.Popen(
                command, env=self.environment, cwd=self.root, encoding="utf-8", stdout=said, stderr=subprocess.STDOUT
            )

    def call(self, *words: object, status: int = 0, command: str = "sweep") -> str:
        """The same to its end."""
        done = subprocess.run(
            console_command("nnunet-covid", command, "sweep.toml", *words),
            env=self.environment,
            cwd=self.root,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def attempts(self, key: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The claims of a run and how they ended."""
        folder = self.results / RECORDS / key
        claims = sorted(path for path in folder.glob("attempt_*.json") if ".end." not in path.name)
        return [(_read(path), _read(path.with_suffix(".end.json"))) for path in claims]

    def statuses(self, key: str) -> list[str]:
        """How the attempts of a run ended; ``killed`` where it is not said."""
        return [end.get("status", "killed") for _, end in self.attempts(key)]

    def weights(self, key: str) -> dict[str, torch.Tensor]:
        """Of a finished training."""
        file = self.results / key / "checkpoint_final.pth"
        return torch.load(file, map_location="cpu", weights_only=False)["network_weights"]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def make(root: Path, trainers: Sequence[str], folds: Sequence[int], seeds: Sequence[int], length: str) -> Sweeping:
    """The data set, and ``sweep.toml`` with these runs and one whose plans are bad."""
    root.mkdir(parents=True, exist_ok=True)
    made = make_tiny_data_set(root, unlabelled=3, size=36)
    names = [f"case_{i}" for i in range(6)]
    splits = [{"train": names[:4], "val": names[4:]}, {"train": names[2:], "val": names[:2]}]
    (made.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    write_plans(made.preprocessed, bad=True)
    (root / "sweep.toml").write_text(
        f'datasets = 940\nconfigurations = "2d"\nplans = "testPlans"\ndevice = "cpu"\nprobabilities = false\n'
        f'trainers = {json.dumps(list(trainers))}\nlengths = "{length}"\nfolds = {list(folds)}\nseeds = {list(seeds)}\n'
        'baseline = "HeldTrainer"\n'
        '[[train]]\nplans = "badPlans"\ntrainers = "nnUNetTrainer"\nfolds = 0\nseeds = 0\n'
    )
    return Sweeping(root)


def write_plans(preprocessed: Path, *, bad: bool) -> None:
    """``badPlans``, with a network that does not exist, or mended."""
    plans = json.loads((preprocessed / "testPlans.json").read_text(encoding="utf-8"))
    plans["plans_name"] = "badPlans"
    if bad:
        plans["configurations"]["2d"]["architecture"]["network_class_name"] = "nowhere.NoNetwork"
    (preprocessed / "badPlans.json").write_text(json.dumps(plans))


def key(trainer: str, length: str, seed: int, fold: int, plans: str = "testPlans") -> str:
    """Of a run."""
    return f"{DATASET}/{trainer}_{length}_seed{seed}__{plans}__2d/fold_{fold}"


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    """What the condition gives as soon as that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited for {seconds} s")
