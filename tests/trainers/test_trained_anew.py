"""A training begun anew in the folder of an earlier one: what ``--c`` goes on from, and what is kept of both."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.run.run_training import maybe_load_checkpoint
from tiny_data_set import make_tiny_data_set

from nnunet_covid import trainers
from nnunet_covid.checkpoint import RESTRICTED
from nnunet_covid.disturbances import alone

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


class Killed(Exception):
    """In the place of a signal."""


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A trainer of a tiny data set, as nnU-Net's command makes it."""
    made = make_tiny_data_set(tmp_path)
    for name, value in {**made.environment(), "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)

    def build(name: str, *, again: bool = False, killed_in: int | None = None) -> Any:
        plans, description = (load_json(str(made.preprocessed / f"{n}.json")) for n in ("testPlans", "dataset"))
        given = {**plans, "continue_training": again}
        trainer = getattr(trainers, name)(given, "2d", 0, description, torch.device("cpu"))
        trainer.logger.plot_progress_png = lambda folder: None
        trainer.save_every = 1
        start = trainer.on_train_epoch_start

        def disturbed() -> None:
            if trainer.current_epoch == killed_in:
                raise Killed
            start()

        trainer.on_train_epoch_start = disturbed
        maybe_load_checkpoint(trainer, continue_training=again, validation_only=False)
        return trainer

    return build


@pytest.mark.parametrize("name", ["InfNetTrainer_3epochs_1its", "UNetWarmUpTrainer_3epochs_1its"])
def test_it_goes_on_as_itself_and_the_earlier_one_is_kept(name: str, new: Callable[..., Any]) -> None:
    earlier = new(name)
    earlier.run_training()
    folder = Path(earlier.output_folder)
    final = (folder / "checkpoint_final.pth").read_bytes()
    (folder / "validation").mkdir()
    (folder / "validation/summary.json").write_text("{}", encoding="utf-8")

    anew = new(name, killed_in=2)
    with pytest.raises(Killed):
        anew.run_training()
    weights = copy.deepcopy(anew.network.state_dict())
    assert (folder / "checkpoint_final.pth.before").read_bytes() == final
    assert [path.name for path in (folder / "validation").iterdir()] == ["summary.json.before"], "not this one's result"
    assert "checkpoint_final.pth of an earlier training" in Path(anew.log_file).read_text(encoding="utf-8")

    again = new(name, again=True)
    assert again.current_epoch == 2
    assert [key for key, value in weights.items() if not torch.equal(again.network.state_dict()[key], value)] == []
    again.run_training()
    assert torch.load(folder / "checkpoint_final.pth", weights_only=False)["current_epoch"] == 3
    assert (folder / "checkpoint_final.pth.before").read_bytes() == final
    new(name, again=True).run_training()
    assert {path.name for path in folder.glob("checkpoint_*.pth")} == {*CHECKPOINTS} - {"checkpoint_latest.pth"}


def test_killed_before_its_first_checkpoint_it_begins_once_more(new: Callable[..., Any]) -> None:
    name = "InfNetTrainer_1epochs_1its"
    new(name).run_training()
    anew = new(name, killed_in=0)
    with pytest.raises(Killed):
        anew.run_training()
    assert new(name, again=True).current_epoch == 0


def test_without_checkpointing_the_earlier_one_stays(new: Callable[..., Any]) -> None:
    name = "InfNetTrainer_1epochs_1its"
    new(name).run_training()
    tried = new(name)
    tried.disable_checkpointing = True
    tried.run_training()
    assert new(name, again=True).current_epoch == 1


def test_without_checkpointing_relation_matrices_of_the_earlier_one_stay(new: Callable[..., Any]) -> None:
    tried = new("CollaborativeTrainerNoGeneralLoss_1epochs_1its")
    tried.disable_checkpointing = True
    earlier = Path(tried.output_folder) / "relations/epoch_0007.npz"
    earlier.parent.mkdir()
    earlier.write_bytes(b"of an earlier one")
    tried.run_training()
    assert earlier.is_file()


def test_weights_to_begin_from_that_are_called_before_by_now_are_named(
    new: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2.run import run_training

    trainer = new("InfNetTrainer_1epochs_1its")
    start = Path(trainer.output_folder, "checkpoint_final.pth")
    Path(f"{start}.before").touch()
    trainer.initialize()
    with pytest.raises(SystemExit):
        run_training.load_pretrained_weights(trainer.network, str(start))
    told = capsys.readouterr().err
    assert (
        f"{start}: cannot be read (No such file or directory); of the training before this one is {start}.before"
        in told
    )


def test_relation_matrices_are_of_one_training(new: Callable[..., Any]) -> None:
    relations = Path(new("CollaborativeTrainerNoGeneralLoss_1epochs_1its").output_folder) / "relations"
    relations.mkdir()
    for file in ("epoch_0007.npz", "relations.png"):
        (relations / file).write_bytes(b"of an earlier one")
    new("CollaborativeTrainerNoGeneralLoss_1epochs_1its").run_training()
    assert {path.name for path in relations.iterdir()} == {"epoch_0000.npz", "relations.png"}
    again = new("CollaborativeTrainerNoGeneralLoss_1epochs_1its", again=True)
    again.run_training()
    assert (relations / "epoch_0000.npz").is_file()


@pytest.mark.parametrize("name", ["InfNetTrainer_1epochs_1its", "UNetWarmUpTrainer_1epochs_1its"])
def test_it_reads_restrictedly_till_it_starts_and_is_alone_in_its_folder(
    name: str, new: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RESTRICTED, raising=False)
    trainer = new(name)
    assert RESTRICTED in os.environ
    with alone(Path(trainer.output_folder) / ".lock", "it", "wait"), pytest.raises(SystemExit):
        trainer.run_training()
    assert "another process is at work on the training in" in capsys.readouterr().err
    trainer.run_training()
    assert RESTRICTED not in os.environ
