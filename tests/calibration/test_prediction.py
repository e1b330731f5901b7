"""A calibrated model in nnU-Net's own predictor, for every kind of trainer and head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from validated_model import REGIONS, TWO_CLASSES, read_calibration, write_validated_model

from nnunet_covid.calibration.fit import Calibration, calibrated_probabilities, log_odds
from nnunet_covid.calibration.model_folder import KEY, remove_calibration, write_calibration
from nnunet_covid.errors import UserError
from nnunet_covid.startup import TRAINERS_FOLDER

HALF_PRECISION = 4e-3
"""nnU-Net adds up tiles in 16-bit floats: relative error of logits."""
LABELS: dict[str, Any] = {"one": None, "two": TWO_CLASSES, "regions": REGIONS}


def some_calibration(probabilities: np.ndarray, kind: str) -> Calibration:
    """Thresholds that divide these probabilities, and temperatures."""
    softmax = kind != "regions"
    middle = np.quantile(log_odds(probabilities, softmax=softmax).reshape(-1, probabilities[0].size), 0.8, axis=1)
    temperatures = (1.7,) * len(middle) if softmax else (1.7, 0.6)
    return Calibration(softmax, temperatures, tuple(float(t) for t in 1 / (1 + np.exp(-middle))))


@pytest.mark.parametrize(
    ("trainer", "kind"),
    [
        ("nnUNetTrainer", "one"),
        ("nnUNetTrainer", "two"),
        ("nnUNetTrainer", "regions"),
        ("InfNetTrainer", "one"),
        ("InfNetTrainer", "two"),
        ("InfNetTrainer", "regions"),
        ("InfNetPretrainedTrainer", "one"),
        ("SSANetTrainer", "one"),
        ("CollaborativeTrainer", "one"),
        ("nnUNetTrainerDiceCELoss_noSmooth", "one"),
        ("InfNetTrainer_3epochs_seed1", "one"),
    ],
)
def test_predictions_change_as_the_saved_probabilities_say(trainer: str, kind: str, tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, trainer=trainer, labels=LABELS[kind], folds=(0,), cases_per_fold=1)
    saved = made.saved("case_00")
    calibration = some_calibration(saved, kind)
    write_calibration(made.checkpoints(), calibration)
    assert read_calibration(made.checkpoints()[0]) == calibration

    labels, probabilities = made.predict("case_00", [0])
    odds = log_odds(saved, softmax=calibration.softmax)
    edges = np.log(calibration.thresholds) - np.log1p(-np.array(calibration.thresholds))
    distances = odds - edges.reshape(-1, 1, 1, 1)
    certain = (np.abs(distances) > HALF_PRECISION * np.abs(odds).max()).all(axis=0)
    foreground = (distances > 0).any(axis=0)
    assert certain.mean() > 0.8
    np.testing.assert_array_equal((labels > 0)[certain], foreground[certain])
    assert 0.05 < foreground.mean() < 0.95, "an empty label map would prove nothing"
    np.testing.assert_allclose(probabilities, calibrated_probabilities(saved, calibration), atol=0.01)


def test_folds_are_averaged_after_calibration_as_before(tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, cases_per_fold=1)
    _, together = made.predict("case_00", [0, 1])
    calibration = some_calibration(together, "one")
    write_calibration(made.checkpoints(), calibration)
    _, calibrated = made.predict("case_00", [0, 1])
    np.testing.assert_allclose(calibrated, calibrated_probabilities(together, calibration), atol=0.01)


@pytest.mark.parametrize("calibrated", [0, 1])
def test_a_fold_without_calibration_is_not_mixed_in(calibrated: int, tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, cases_per_fold=1)
    write_calibration([made.checkpoints()[calibrated]], Calibration(True, (1.0,), (0.4,)))
    with pytest.raises(UserError, match="not calibrated alike; run nnunet-covid calibrate"):
        made.predict("case_00", [0, 1])
    made.predict("case_00", [calibrated])


def test_nnunets_own_prediction_refuses_a_fold_without_calibration_behind_one_that_has_it(tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, cases_per_fold=1)
    write_calibration(made.checkpoints()[:1], Calibration(True, (1.0,), (0.4,)))
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(made.folder), (0, 1))
    with pytest.raises(RuntimeError, match="hold no calibration: calibrate all folds"):
        predictor.predict_logits_from_preprocessed_data(torch.randn(1, 1, 32, 32))


def test_a_calibrated_network_compiles(tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, folds=(0,), cases_per_fold=1)
    write_calibration(made.checkpoints(), Calibration(True, (2.0,), (0.4,)))
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(made.folder), (0,))
    image = torch.randn(1, 1, 32, 32)
    compiled = torch.compile(predictor.network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), predictor.network(image))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "InfNetTrainer"])
def test_the_trainer_of_a_calibrated_model_cannot_train(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = recursive_find_trainer_class_by_name(f"{trainer}_calibrated")
    with pytest.raises(SystemExit):
        found(plans={}, configuration="2d", fold=0, dataset_json={})
    assert capsys.readouterr().err == (
        f"error: {trainer}_calibrated only predicts: train, continue and validate with -tr {trainer}\n"
    )


def test_a_trainer_of_the_user_is_found_with_its_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_trainer.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n\n"
        "class MyTrainer(nnUNetTrainer):\n    pass\n\n"
        "class MyNet(nnUNetTrainer):\n    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), str(TRAINERS_FOLDER)]))
    for name in ("MyTrainer", "MyNet", "MyNet_3epochs"):
        assert recursive_find_trainer_class_by_name(f"{name}_calibrated").__mro__[1].__name__ == name
    with pytest.raises(RuntimeError, match="NoTrainer_calibrated"):
        recursive_find_trainer_class_by_name("NoTrainer_calibrated")


def weights_of(path: Path) -> dict[str, bytes]:
    checkpoint = torch.load(path, weights_only=False)
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoint["network_weights"].items()}


def test_undoing_leaves_everything_as_it_was(tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, cases_per_fold=1)
    paths = made.checkpoints()
    weights = [weights_of(path) for path in paths]
    before = [torch.load(path, weights_only=False) for path in paths]
    for threshold in (0.3, 0.6):  # the second takes the place of the first
        write_calibration(paths, Calibration(True, (2.0,), (threshold,)))
    assert [weights_of(path) for path in paths] == weights
    assert {torch.load(path, weights_only=False)["trainer_name"] for path in paths} == {"nnUNetTrainer_calibrated"}
    assert remove_calibration(paths) == paths
    assert remove_calibration(paths) == []
    assert [weights_of(path) for path in paths] == weights
    for path, old in zip(paths, before, strict=True):
        new = torch.load(path, weights_only=False)
        assert new.keys() == old.keys()
        assert new["network_weights"]._metadata == old["network_weights"]._metadata
        assert {k: v for k, v in new.items() if k != "network_weights"} == {
            k: v for k, v in old.items() if k != "network_weights"
        }


def test_a_failure_leaves_no_fold_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_validated_model(tmp_path, cases_per_fold=1)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    save, saved = torch.save, []

    def fails_at_the_second(content: Any, stream: Any) -> None:
        saved.append(content["network_weights"]._metadata[""][KEY])
        save(content, stream)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails_at_the_second)
    with pytest.raises(Exception, match="No space left on device"):
        write_calibration(made.checkpoints(), Calibration(True, (2.0,), (0.4,)))
    assert len(saved) == 2
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
