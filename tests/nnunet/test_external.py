"""Our trainers are found without nnU-Net's search, unless another folder may hold one of the same name."""

from __future__ import annotations

import os

import pytest
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as search

from nnunet_covid import trainers
from nnunet_covid.nnunet.external import known_trainers_found_at_once
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that nnU-Net's search was asked for."""
    names: list[str] = []

    def recorded(name: str) -> type:
        names.append(name)
        return search(name)

    monkeypatch.setattr(predict_from_raw_data, "recursive_find_trainer_class_by_name", recorded)
    return names


def found(name: str) -> type:
    with known_trainers_found_at_once():
        return predict_from_raw_data.recursive_find_trainer_class_by_name(name)


@pytest.mark.parametrize("name", ["InfNetTrainer", "SSANetTrainer_20epochs_5its_seed1", "nnUNetTrainer_20epochs_5its"])
def test_ours_are_found_without_a_search(name, asked, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(TRAINERS_FOLDER))
    assert found(name) is getattr(trainers, name) is search(name)
    assert asked == []


def test_others_are_searched_for_and_the_search_is_as_it_was_afterwards(asked, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(TRAINERS_FOLDER))
    assert found("nnUNetTrainer") is nnUNetTrainer
    assert asked == ["nnUNetTrainer"]
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer NoSuchTrainer"):
        found("NoSuchTrainer")
    predict_from_raw_data.recursive_find_trainer_class_by_name("nnUNetTrainerDA5")
    assert asked[-1] == "nnUNetTrainerDA5"


def test_a_users_folder_comes_first_as_in_nnunet(tmp_path, asked, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class InfNetTrainer(nnUNetTrainer):\n    pass\n"
    )
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path), str(TRAINERS_FOLDER)]))
    assert found("InfNetTrainer") is not trainers.InfNetTrainer
    assert asked == ["InfNetTrainer"]
