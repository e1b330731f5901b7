"""A training that goes on after its class was edited: what follows the class, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_covid.trainers.ssa_net import SSANetTrainer
from nnunet_covid.trainers.undisturbed import UndisturbedTrainer

CPU = torch.device("cpu")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A trainer with these class attributes, at its beginning or where ``--c`` begins."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)

    def build(kind: type = SSANetTrainer, *, again: bool = True, **settings: Any) -> Any:
        plans = {**planned.plans(stages=4, patch=[32, 32]), "continue_training": again}
        made = type(kind.__name__, (kind,), settings)(plans, "2d", 0, planned.dataset_json(), CPU)
        if not again:
            made.initialize()
            step(made)
        return made

    return build


def step(trainer: Any) -> None:
    for parameter in trainer.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.optimizer.step()


def saved(trainer: Any, folder: Path) -> str:
    trainer.save_checkpoint(str(folder / "checkpoint.pth"))
    return str(folder / "checkpoint.pth")


def go_on(trainer: Any, file: str) -> None:
    trainer.load_checkpoint(file)
    trainer.run_training()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"optimizer_name": "adamw"}, {"optimizer_name": "sgd"}),
        ({"optimizer_name": "sgd"}, {"optimizer_name": "adamw"}),
        ({"optimizer_name": "adamw"}, {"optimizer_name": "adamw", "encoder_rate": 0.1}),
    ],
)
def test_another_optimizer_is_told(
    before: dict[str, Any],
    after: dict[str, Any],
    make: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = saved(make(again=False, **before), tmp_path)
    edited = make(**after)
    with pytest.raises(SystemExit) as stop:
        go_on(edited, file)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {edited.output_folder} was trained with another optimiser than SSANetTrainer has")
    assert error.count("\n") == 1
    same = make(**before)
    same.load_checkpoint(file)
    step(same)


def test_another_optimizer_does_not_matter_to_a_validation(make: Callable[..., Any], tmp_path: Path) -> None:
    file = saved(make(again=False, optimizer_name="adamw"), tmp_path)
    validated = make(again=False, optimizer_name="sgd")
    validated.load_checkpoint(file)
    assert validated.current_epoch == 1


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weight_decay_and_its_kind_follow_the_class_as_the_rate_does(
    name: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    file = saved(make(again=False, optimizer_name="adamw", regularisation=1e-2, learning_rate=1e-3), tmp_path)
    edited = make(optimizer_name=name, regularisation=0.5, learning_rate=1e-2)
    edited.load_checkpoint(file)
    edited.lr_scheduler.step(0)
    expected = make(again=False, optimizer_name=name, regularisation=0.5, learning_rate=1e-2)
    expected.lr_scheduler.step(0)
    (found,), (wanted,) = edited.optimizer.param_groups, expected.optimizer.param_groups
    assert {key: found[key] for key in expected.optimizer.defaults} == {
        key: wanted[key] for key in expected.optimizer.defaults
    }
    assert "weight_decay = 0.5 of the class in the place of 0.01" in Path(edited.log_file).read_text()


def test_stock_nnunets_checkpoints_are_gone_on_from(make: Callable[..., Any], tmp_path: Path) -> None:
    file = saved(make(nnUNetTrainer, again=False), tmp_path)
    trainer = make(type("nnUNetTrainer", (UndisturbedTrainer,), {}))
    trainer.load_checkpoint(file)
    step(trainer)
    assert "of the class in the place of" not in Path(trainer.log_file).read_text()
