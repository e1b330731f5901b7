"""``nnunet-covid calibrate``: what it says, writes and refuses."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write_picture
from validated_model import REGIONS, TWO_CLASSES, ValidatedModel, read_calibration, write_validated_model

from nnunet_covid.calibration.measure import Measurement, measure
from nnunet_covid.calibration.model_folder import open_validation
from nnunet_covid.cli import main
from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ValidatedModel:
    return write_validated_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def made(written: ValidatedModel, tmp_path: Path) -> ValidatedModel:
    return written.copy(tmp_path)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))


def calibrate(made: ValidatedModel, *options: str) -> int:
    return main(["calibrate", str(made.folder), *options])


def refused(made: ValidatedModel, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line of an error, with which nothing is written."""
    before = [path.read_bytes() for path in made.checkpoints()]
    capsys.readouterr()
    assert calibrate(made, *options) == 2
    assert [path.read_bytes() for path in made.checkpoints()] == before
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


def measured(made: ValidatedModel) -> Measurement:
    return measure(open_validation(made.folder))


def test_it_tells_the_expected_change_and_calibrates_every_fold(
    made: ValidatedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(made) == 0
    told = capsys.readouterr().out
    assert "6 validation cases in 2 folds" in told
    report = json.loads((made.folder / "calibration/calibration.json").read_text())
    infection = report["classes"]["infection"]
    assert f"infection: threshold {infection['threshold']:.3f} instead of 0.5" in told
    assert f"{infection['dice']['change']:+.3f} [" in told
    assert infection["dice"]["interval"][0] > 0, "references begin far from 0.5"
    (found,) = {read_calibration(path) for path in made.checkpoints()}
    assert found is not None
    assert found.thresholds == (infection["threshold"],)
    assert (made.folder / "calibration/reliability.png").stat().st_size > 10_000


def test_what_it_expects_without_nesting_is_what_prediction_then_does(made: ValidatedModel) -> None:
    found = measured(made)
    assert calibrate(made) == 0
    case = "case_00"
    labels, _ = made.predict(case, [0])
    assert found.calibration.thresholds[0] != 0.5
    p = made.saved(case)[1]
    assert ((labels == 1) == (p > found.calibration.thresholds[0])).mean() > 0.98


def test_a_dry_run_only_measures_and_a_second_run_changes_nothing(made: ValidatedModel) -> None:
    def content() -> list[bytes]:
        return [path.read_bytes() for path in made.checkpoints()]

    trained = content()
    assert calibrate(made, "--dry-run") == 0
    assert content() == trained
    assert (made.folder / "calibration/calibration.json").is_file()
    assert calibrate(made) == 0
    calibrated = content()
    assert calibrated != trained
    assert calibrate(made) == 0
    assert content() == calibrated


def test_undo(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = made.predict("case_00", [0, 1])
    assert calibrate(made) == 0
    assert not np.array_equal(made.predict("case_00", [0, 1])[0], before)
    assert calibrate(made, "--undo") == 0
    assert "checkpoint_final.pth of fold_0, fold_1 as trained" in capsys.readouterr().out
    np.testing.assert_array_equal(made.predict("case_00", [0, 1])[0], before)


def test_the_command_that_is_printed_undoes_it(
    made: ValidatedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my results").mkdir()
    folder = Path(shutil.move(made.folder, tmp_path / "my results" / made.folder.name))
    for fold in folder.glob("fold_*"):
        (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    assert main(["calibrate", str(folder), "-chk", "checkpoint_best.pth"]) == 0
    undo = capsys.readouterr().out.partition("undo with: nnunet-covid ")[2].splitlines()[0]
    assert main(shlex.split(undo)) == 0
    assert "checkpoint_best.pth of fold_0, fold_1 as trained" in capsys.readouterr().out


def test_no_part_is_measured_with_what_its_own_cases_say(made: ValidatedModel) -> None:
    before = measured(made)
    for case in made.cases[0]:
        write_picture(made.references / f"{case}.png", np.eye(40, 44, dtype=np.uint8))
    after = measured(made)
    assert after.nested["fold_0"] == before.nested["fold_0"]
    assert after.nested["fold_1"] != before.nested["fold_1"]
    assert after.calibration != before.calibration


def test_a_single_fold_is_measured_in_parts_of_neighbours(tmp_path: Path) -> None:
    made = write_validated_model(tmp_path, folds=(0,), cases_per_fold=7)
    parts = [case.part for case in open_validation(made.folder).cases]
    assert parts == ["part_0"] * 2 + ["part_1"] * 2 + ["part_2", "part_3", "part_4"]
    assert len(measured(made).nested) == 5


def test_temperature_only_changes_no_label(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = made.predict("case_00", [0])
    assert calibrate(made, "--temperature-only") == 0
    assert "threshold 0.5, temperature" in capsys.readouterr().out
    after, _ = made.predict("case_00", [0])
    assert (after == before).mean() > 0.99  # nnU-Net adds up 16-bit floats


@pytest.mark.parametrize(("labels", "processes"), [(TWO_CLASSES, "2"), (REGIONS, "1")])
def test_several_classes_and_regions_with_several_processes(
    labels: dict, processes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_validated_model(tmp_path, labels=labels, cases_per_fold=2)
    assert calibrate(made, "--dry-run", "-n", processes, "-o", str(tmp_path / "out")) == 0
    told = capsys.readouterr().out
    for name in labels.keys() - {"background", "ignore"}:
        assert f"{name}: threshold" in told
    assert "Dice, mean of the classes" in told
    assert (tmp_path / "out/reliability.png").is_file()
    assert not (made.folder / "calibration").exists()


def test_where_the_measured_dice_falls_nothing_is_written(
    made: ValidatedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [path.read_bytes() for path in made.checkpoints()]
    for fold, share in ((0, 0.2), (1, 0.9)):  # each fold's best threshold is wrong for the other
        for case in made.cases[fold]:
            p = made.saved(case)[1, 0]
            write_picture(made.references / f"{case}.png", (p > np.quantile(p, share)).astype(np.uint8))
    assert calibrate(made) == 1
    assert "not calibrated: on cases it has not seen the fitted threshold loses Dice" in capsys.readouterr().out
    assert [path.read_bytes() for path in made.checkpoints()] == before


def test_missing_probabilities_are_told_with_the_command_that_writes_them(
    made: ValidatedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.folder / "fold_1/validation/case_11.npz").unlink()
    assert refused(made, capsys).endswith(
        "fold_1/validation has no probabilities of case_11; they are written by: "
        "nnUNetv2_train Dataset999_Test 2d 1 -tr nnUNetTrainer -p testPlans --val --npz"
    )
    shutil.rmtree(made.folder / "fold_1/validation")
    assert "fold_1/validation has no probabilities; they are written by" in refused(made, capsys)


def test_the_model_may_be_the_folder_where_one_stands(
    made: ValidatedModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.folder)
    assert main(["calibrate", ".", "--dry-run"]) == 0
    report = json.loads((made.folder / "calibration/calibration.json").read_text(encoding="utf-8"))
    assert report["model"] == made.folder.name
    next(made.folder.glob("fold_0/validation/*.npz")).unlink()
    assert main(["calibrate", "."]) == 2
    assert f" -tr {made.folder.name.split('__')[0]} " in capsys.readouterr().err


def test_training_cases_are_refused(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(made, "--dry-run") == 0
    assert "note: no splits_final.json" in capsys.readouterr().err
    splits = [{"train": made.cases[1], "val": made.cases[0]}, {"train": made.cases[0], "val": made.cases[1]}]
    path = made.references.parent / "splits_final.json"
    path.write_text(json.dumps(splits))
    assert calibrate(made, "--dry-run") == 0
    assert "splits_final.json" not in capsys.readouterr().err
    path.write_text(json.dumps(splits[::-1]))
    assert "training cases of this fold in splits_final.json" in refused(made, capsys)


def test_fold_all_is_neither_fitted_on_nor_calibrated(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made.folder / "fold_0", made.folder / "fold_all")
    assert calibrate(made) == 0
    assert read_calibration(made.folder / "fold_all/checkpoint_final.pth") is None
    for fold in (0, 1):
        shutil.rmtree(made.folder / f"fold_{fold}")
    assert calibrate(made) == 2
    assert "fold_all, which was trained on all its cases" in capsys.readouterr().err


def test_other_mistakes(
    made: ValidatedModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"{made.images} lacks the references case_00.png" in refused(made, capsys, "--references", str(made.images))
    monkeypatch.setenv("nnUNet_extTrainer", "elsewhere")
    assert "run 'nnunet-covid register' first" in refused(made, capsys)
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "nnUNet_preprocessed is not set" in refused(made, capsys, "--dry-run")
    assert main(["calibrate", str(made.images)]) == 2


def test_files_that_do_not_fit(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    case = made.folder / "fold_0/validation/case_00.npz"
    own = case.read_bytes()
    np.savez_compressed(case, probabilities=np.zeros((3, 1, 40, 44)))
    assert "has the shape (3, 1, 40, 44), labels and reference ask for (2, 1, 40, 44)" in refused(made, capsys)
    case.write_bytes(case.read_bytes()[:100])
    assert f"{case}: cannot be read" in refused(made, capsys)
    case.write_bytes(own)
    made.checkpoints()[1].write_bytes(b"half")
    assert "cannot be read" in refused(made, capsys)
    for reference in made.references.iterdir():
        write_picture(reference, np.zeros((40, 44), np.uint8))
    assert "no reference of the validation cases shows any class" in refused(made, capsys)


@pytest.mark.parametrize("labels", [None, TWO_CLASSES, REGIONS], ids=["one class", "two classes", "regions"])
def test_probabilities_of_an_earlier_training_are_refused(
    labels: dict[str, Any] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``--val --npz`` has left, beside the label map of a fold that was trained anew without ``--npz``."""
    made = write_validated_model(tmp_path, labels=labels)
    case = made.folder / "fold_0/validation/case_00.npz"
    np.savez_compressed(case, probabilities=made.predict("case_00", [1])[1])
    assert f"{case} does not belong to the label map beside it" in refused(made, capsys)


def test_a_case_of_two_folds_is_refused(made: ValidatedModel, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in (".npz", ".png"):
        shutil.copy(made.folder / f"fold_0/validation/case_00{ending}", made.folder / "fold_1/validation")
    assert "case case_00 is in the validation of fold_0 and of fold_1" in refused(made, capsys)


def test_checkpoints_keep_what_else_they_hold(made: ValidatedModel) -> None:
    path = made.checkpoints()[0]
    content = torch.load(path, weights_only=False)
    torch.save({**content, "optimizer_state": {"state": {0: torch.ones(3)}}, "current_epoch": 7}, path)
    assert calibrate(made) == 0
    after = torch.load(path, weights_only=False)
    assert torch.equal(after["optimizer_state"]["state"][0], torch.ones(3))
    assert after["current_epoch"] == 7
