"""Lengths and seeds in a trainer's name."""

from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_covid import trainers
from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.mark.parametrize("base", [*trainers.TRAINERS, "nnUNetTrainer"])
def test_every_trainer_has_every_length(base: str) -> None:
    written = nnUNetTrainer if base == "nnUNetTrainer" else getattr(trainers, base)
    for suffix in ("_30epochs", "_20epochs_50its", "_7its", "_3epochs_seed5", "_3epochs_4its_seed0"):
        variant = getattr(trainers, base + suffix)
        assert issubclass(variant, written)
        assert variant is getattr(trainers, base + suffix)
        assert variant.__name__ == base + suffix
        assert pickle.loads(pickle.dumps(variant)) is variant
        assert list(inspect.signature(variant.__init__).parameters) == list(
            inspect.signature(nnUNetTrainer.__init__).parameters
        )


@pytest.mark.parametrize(
    "name",
    [
        "InfNetTrainer_0epochs",
        "InfNetTrainer_10epochs_0its",
        "InfNetTrainer_epochs",
        "InfNetTrainer_50its_10epochs",
        "NoSuchTrainer_10epochs",
        "NoSuchTrainer",
    ],
)
def test_other_names_are_not_found(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(trainers, name)


@pytest.mark.parametrize("base", ["InfNetTrainer", "nnUNetTrainer", "InfNetRes2NetScratchTrainer"])
def test_numbers_reach_the_trainer(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    variant = getattr(trainers, f"{base}_12epochs_40its_seed3")
    getattr(trainers, f"{base}_seed{2**32}")(planned.plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
    draws = []
    for _ in range(2):
        made = variant(planned.plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
        draws.append((np.random.rand(), torch.rand(1).item()))
    assert (made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch) == (12, 40, 8)
    assert draws[0] == draws[1]
    assert made.output_folder.endswith(f"{base}_12epochs_40its_seed3__testPlans__2d/fold_0")
    assert set(made.my_init_kwargs) == {"plans", "configuration", "fold", "dataset_json", "device"}


def test_nnunet_finds_the_same_class_in_training_and_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    found = [recursive_find_trainer_class_by_name("InfNetTrainer_30epochs") for _ in range(2)]
    assert found[0] is found[1] is trainers.InfNetTrainer_30epochs
    assert recursive_find_trainer_class_by_name("InfNetTrainer") is trainers.InfNetTrainer
    assert issubclass(recursive_find_trainer_class_by_name("nnUNetTrainer_9epochs_3its"), nnUNetTrainer)
    with pytest.raises(RuntimeError, match="NoSuchTrainer"):
        recursive_find_trainer_class_by_name("NoSuchTrainer")


def _timed(transform: object) -> list[object]:
    """Every transform in a tree that times two implementations and takes the faster."""
    inner = [*getattr(transform, "transforms", []), *([transform.transform] if hasattr(transform, "transform") else [])]
    return [*([transform] if getattr(transform, "benchmark", False) else []), *(t for i in inner for t in _timed(i))]


@pytest.mark.parametrize("base", ["InfNetTrainer", "nnUNetTrainer"])
def test_a_seed_switches_off_what_depends_on_the_speed_of_the_machine(base: str) -> None:
    arguments = ((32, 32), (-0.1, 0.1), None, (0, 1), False)
    arguments_by_name = {"use_mask_for_norm": [False]}
    without = getattr(trainers, f"{base}_2epochs").get_training_transforms(*arguments, **arguments_by_name)
    seeded = getattr(trainers, f"{base}_2epochs_seed1").get_training_transforms(*arguments, **arguments_by_name)
    assert _timed(without)
    assert not _timed(seeded)


def test_any_trainer_that_nnunet_finds_takes_a_length_and_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net's variants, and a user's own in a folder of nnUNet_extTrainer."""
    (tmp_path / "my_trainer.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n\n\n"
        "class NetOfSomebody(nnUNetTrainer):\n    pass\n"
    )
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join((str(tmp_path), str(TRAINERS_FOLDER))))
    for base in ("nnUNetTrainerDA5", "NetOfSomebody"):
        found = recursive_find_trainer_class_by_name(f"{base}_7epochs_3its_seed1")
        made = found(planned.plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
        assert (made.num_epochs, made.num_iterations_per_epoch) == (7, 3)
        assert base in [kind.__name__ for kind in type(made).__mro__]
