"""``TRAINER_consistency``: its step against the equations, the plain trainer bit for bit, checkpoints, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid import trainers
from nnunet_covid.cli import main
from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.semi_supervised.moving_average import states
from nnunet_covid.startup import TRAINERS_FOLDER

CPU = torch.device("cpu")
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TinyDataSet]:
    """A tiny data set with its unlabelled images linked."""

    def build(**kwargs: Any) -> TinyDataSet:
        made = make_tiny_data_set(tmp_path, **{"unlabelled": 3, **kwargs})
        variables = {"nnUNet_n_proc_DA": "0", "nnUNet_extTrainer": str(TRAINERS_FOLDER)}
        for name, value in {**made.environment(), **variables}.items():
            monkeypatch.setenv(name, value)
        assert link(made) == 0
        return made

    return build


def link(made: TinyDataSet) -> int:
    where = ["-p", "testPlans", "-c", made.configuration, "-np", "1", "--unlabelled", str(made.unlabelled)]
    return main(["link", "-d", "940", *where])


def new_trainer(made: TinyDataSet, kind: type | str, *, again: bool = False) -> Any:
    """A trainer of the tiny data set that draws no pictures."""
    from batchgenerators.utilities.file_and_folder_operations import load_json

    plans = load_json(str(made.preprocessed / "testPlans.json"))
    description = load_json(str(made.preprocessed / "dataset.json"))
    chosen = getattr(trainers, kind) if isinstance(kind, str) else kind
    trainer = chosen({**plans, "continue_training": again}, made.configuration, 0, description, CPU)
    trainer.logger.plot_progress_png = lambda folder: None
    return trainer


def variant(name: str, **settings: Any) -> type:
    return type(name, (getattr(trainers, name),), settings)


def student_of(trainer: Any) -> dict[str, torch.Tensor]:
    trainer.show(teacher=False)
    weights = copy.deepcopy(unwrapped(trainer.network).state_dict())
    trainer.show(teacher=True)
    return weights


def recorded(trainer: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """Let a trainer write down the labelled images of every step, and the student's weights before and after each."""
    seen: list[torch.Tensor] = []
    students: list[Any] = []
    step = trainer.train_step

    def noted(batch: dict[str, Any]) -> Any:
        seen.append(batch["data"].clone())
        if not students:
            students.append([one.clone() for one in states(unwrapped(trainer.network))])
        result = step(batch)
        students.append([one.clone() for one in states(unwrapped(trainer.network))])
        return result

    trainer.train_step = noted
    return seen, students


# --- the plain trainer, and the moving average, in real trainings


@pytest.mark.parametrize("base", ["nnUNetTrainer", "UNetPretrainedScratchTrainer"])
def test_weight_zero_is_the_plain_trainer_bit_for_bit(base: str, linked: Callable[..., TinyDataSet]) -> None:
    made = linked()
    plain = new_trainer(made, f"{base}_2epochs_3its_seed1")
    batches, _ = recorded(plain)
    plain.run_training()
    trainer = new_trainer(made, variant(f"{base}_consistency_2epochs_3its_seed1", unlabelled_weight=0.0))
    others, _ = recorded(trainer)
    trainer.run_training()
    for a, b in zip(batches, others, strict=True):
        assert torch.equal(a, b)
    for key, value in student_of(trainer).items():
        assert torch.equal(value, plain.network.state_dict()[key]), key
    assert not torch.equal(states(trainer.network)[0], states(plain.network)[0]), "the network is the teacher"
