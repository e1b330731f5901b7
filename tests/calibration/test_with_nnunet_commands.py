"""Calibration between nnU-Net's own commands: prediction and export use it, continued and new trainings do not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from tiny_data_set import TinyDataSet, make_tiny_data_set
from validated_model import read_calibration

from nnunet_covid.calibration.fit import calibrated_probabilities
from nnunet_covid.startup import TRAINERS_FOLDER, console_command

pytestmark = pytest.mark.e2e
CASES = ("case_4", "case_5")
"""The validation cases of the tiny data set."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyDataSet:
    made = make_tiny_data_set(tmp_path)
    settings = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    for name, value in {**made.environment(), **settings, "nnUNet_extTrainer": str(TRAINERS_FOLDER)}.items():
        monkeypatch.setenv(name, value)
    (made.root / "images").mkdir()
    for case in CASES:
        shutil.copy(made.raw / "imagesTr" / f"{case}_0000.png", made.root / "images")
    return made


def run(command: str, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        console_command(command, *arguments),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def probabilities(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for case in CASES:
        with np.load(folder / f"{case}.npz") as archive:
            found[case] = archive["probabilities"]
    return found


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["network_weights"]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_1epochs_20its_seed1", "InfNetTrainer_1epochs_20its_seed1"])
def test_prediction_uses_it_and_training_does_not(trainer: str, made: TinyDataSet) -> None:
    what = ["-tr", trainer, "-p", "testPlans"]
    run("nnUNetv2_train", 940, "2d", 0, *what, "-device", "cpu", "--npz")
    model = made.model(trainer)
    path = model / "fold_0" / "checkpoint_final.pth"
    trained = made.root / "trained.pth"
    shutil.copy(path, trained)
    saved = probabilities(model / "fold_0" / "validation")

    assert "2 validation cases in 2 parts of one fold" in run("nnunet-covid", "calibrate", model)
    calibration = read_calibration(path)
    assert calibration is not None
    at = ["-d", 940, "-c", "2d", "-f", 0, *what, "-device", "cpu", "-npp", 1, "-nps", 1, "--save_probabilities"]
    run("nnUNetv2_predict", "-i", made.root / "images", "-o", made.root / "predicted", *at)
    predicted = probabilities(made.root / "predicted")
    for case, found in predicted.items():
        np.testing.assert_allclose(found, calibrated_probabilities(saved[case], calibration), atol=0.01)
        assert np.abs(found - saved[case]).max() > 0.05
    if trainer.startswith("nnUNetTrainer"):
        for case, found in exported_model_predicts(made, what, at).items():
            np.testing.assert_array_equal(found, predicted[case])

    run("nnUNetv2_train", 940, "2d", 0, *what, "-device", "cpu", "--val", "--npz")
    for case, found in probabilities(model / "fold_0" / "validation").items():
        np.testing.assert_array_equal(found, saved[case])

    continued = get_trainer_from_args("940", "2d", 0, trainer, "testPlans", True, torch.device("cpu"))
    maybe_load_checkpoint(continued, True, False)
    assert_same(continued.network.state_dict(), state_of(trained))
    continued.save_checkpoint(str(made.root / "continued.pth"))
    assert read_calibration(made.root / "continued.pth") is None
    assert torch.load(made.root / "continued.pth", weights_only=False)["trainer_name"] == trainer

    tuned = []
    for source in (trained, path):
        torch.manual_seed(0)
        fresh = get_trainer_from_args("940", "2d", 0, trainer, "testPlans", device=torch.device("cpu"))
        fresh.initialize()
        load_pretrained_weights(fresh.network, str(source))
        tuned.append(fresh.network.state_dict())
    assert_same(*tuned)


def exported_model_predicts(made: TinyDataSet, what: list[str], at: list[object]) -> dict[str, np.ndarray]:
    """Probabilities of the model after nnU-Net has packed it and installed it in another place."""
    run("nnUNetv2_export_model_to_zip", "-d", 940, "-c", "2d", "-f", 0, *what, "-o", made.root / "model.zip")
    (made.root / "elsewhere").mkdir()
    elsewhere = {"nnUNet_results": str(made.root / "elsewhere")}
    run("nnUNetv2_install_pretrained_model_from_zip", made.root / "model.zip", **elsewhere)
    run("nnUNetv2_predict", "-i", made.root / "images", "-o", made.root / "there", *at, **elsewhere)
    return probabilities(made.root / "there")
