import os
import sys

import pytest

from nnunet_covid.demo.settings import Settings, Workspace
from nnunet_covid.device import chosen_device
from nnunet_covid.errors import UserError
from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"training": 4}, "at least 5"),
        ({"test": 0}, "number of test must be at least 1"),
        ({"epochs": 0}, "number of epochs"),
        ({"pixel": 9.0}, "0.5 to 4 mm"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(wrong, words):
    with pytest.raises(UserError, match=words) as caught:
        Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_trainer_name_says_length_and_seed():
    assert Settings(epochs=3, iterations=7, seed=2).trainer == "InfNetTrainer_3epochs_7its_seed2"


def test_environment_has_folders_of_its_own_and_keeps_other_trainers(tmp_path):
    base = {"nnUNet_raw": "elsewhere", "nnUNet_extTrainer": "theirs", "PATH": "kept"}
    environment = Workspace(tmp_path).environment("cpu", base)
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["nnUNet_extTrainer"].split(os.pathsep) == ["theirs", str(TRAINERS_FOLDER)]
    assert environment["PATH"] == "kept"
    assert base["nnUNet_raw"] == "elsewhere"


def test_auto_takes_cuda_if_present(monkeypatch):
    import torch

    for present, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert chosen_device("auto") == device


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="sees no cuda device"):
        chosen_device("cuda")


def test_importing_the_command_does_not_import_torch():
    import subprocess

    program = "import nnunet_covid.cli.demo, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
