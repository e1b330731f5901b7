"""A run of pseudo-label rounds in a process of its own that may be killed at any moment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from nnunet_covid.semi_supervised import learner, pseudo_label_run
from nnunet_covid.semi_supervised.experiment import find_experiment
from nnunet_covid.semi_supervised.options import make_options

TRAINER = "nnUNetTrainer_1epochs_1its"
SHORT = {"max_rounds": 1, "round_epochs": 1, "round_iterations": 1, "two_step": False}


def quick_ending(monkeypatch: Any = None) -> None:
    """Leave out nnU-Net's own validation, which starts two pools of processes, and the pictures."""

    def publish(experiment: Any, trainer: Any, checkpoint: Path) -> dict[str, Any]:
        experiment.fold_folder.mkdir(parents=True, exist_ok=True)
        (experiment.fold_folder / "published").write_bytes(checkpoint.read_bytes())
        return {"dice": 0.0}

    def draw(*arguments: Any) -> None:
        pass

    for module, name, function in ((learner, "publish_model", publish), (pseudo_label_run, "draw_progress", draw)):
        if monkeypatch is None:
            setattr(module, name, function)
        else:
            monkeypatch.setattr(module, name, function)


def do_rounds(images: Path, configuration: str, trainer: str, strategy: Any, tag: str, options: dict[str, Any]) -> Any:
    """All rounds on the tiny data set; returns the experiment."""
    experiment = find_experiment("940", configuration, "0", trainer, tag, "testPlans", torch.device("cpu"))
    chosen = make_options(strategy, options)
    pseudo_label_run.run_pseudo_labels(experiment, chosen, images, tell=lambda line: None)
    return experiment


def units(experiment: Any) -> dict[str, Any]:
    """The results in the state file."""
    content = json.loads((experiment.report_folder / "state.json").read_text())
    return {name: unit["result"] for name, unit in content["units"].items()}


def in_own_process(environment: dict[str, str], log: Path, *arguments: Any) -> None:
    """What the process does."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("a") as stream:
        sys.stdout = sys.stderr = stream
        quick_ending()
        do_rounds(*arguments)
