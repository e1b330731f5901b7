"""Trainings of ``TRAINER_consistency`` on a tiny data set: the plain trainer bit for bit, the average, kills."""

from __future__ import annotations

import copy
import errno
import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid import trainers
from nnunet_covid.cli import main
from nnunet_covid.disturbances import alone
from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.semi_supervised.moving_average import decay_at, states
from nnunet_covid.startup import TRAINERS_FOLDER
from nnunet_covid.trainers import consistency
from nnunet_covid.trainers.on_demand import found_by_nnunet, trainer_of_length

CPU = torch.device("cpu")


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


def link(made: TinyDataSet, images: Path | None = None) -> int:
    where = ["-p", "testPlans", "-c", made.configuration, "-np", "1", "--unlabelled", str(images or made.unlabelled)]
    return main(["link", "-d", "940", *where])


def new_trainer(made: TinyDataSet, kind: type | str, *, again: bool = False, fold: int = 0) -> Any:
    """A trainer of the tiny data set that draws no pictures."""
    from batchgenerators.utilities.file_and_folder_operations import load_json

    plans = load_json(str(made.preprocessed / "testPlans.json"))
    description = load_json(str(made.preprocessed / "dataset.json"))
    chosen = getattr(trainers, kind) if isinstance(kind, str) else kind
    trainer = chosen({**plans, "continue_training": again}, made.configuration, fold, description, CPU)
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


@pytest.mark.parametrize("dims", [2, 3])
def test_the_teacher_is_the_closed_form_of_the_students_steps(dims: int, linked: Callable[..., TinyDataSet]) -> None:
    made = linked(dims=dims)
    kind = variant("nnUNetTrainer_consistency_2epochs_3its_seed1", teacher_decay=(0.5, 0.9), eta=0.52)
    trainer = new_trainer(made, kind)
    _, students = recorded(trainer)
    trainer.run_training()
    decays = [decay_at(step, 0.5, 0.9) for step in range(6)]
    for position, found in enumerate(states(unwrapped(trainer.network))):
        expected = math.prod(decays) * students[0][position].double()
        for step, decay in enumerate(decays):
            expected = expected + (1 - decay) * math.prod(decays[step + 1 :]) * students[step + 1][position].double()
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert {len(logged[key]) for key in consistency.LOGGED} == {2}
    assert all(0 < value < 1 for value in logged["trusted"])
    assert logged["unlabelled_weight"] == pytest.approx([math.exp(-5 / 4), 1.0])
    assert np.isfinite(logged["agreement"]).all()


def test_labelled_batches_are_the_plain_trainers_whatever_is_done_with_unlabelled_ones(
    linked: Callable[..., TinyDataSet],
) -> None:
    made = linked()
    seen = []
    for name in ("nnUNetTrainer_2epochs_3its_seed1", "nnUNetTrainer_consistency_2epochs_3its_seed1"):
        trainer = new_trainer(made, name)
        batches, _ = recorded(trainer)
        trainer.run_training()
        seen.append(batches)
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


# --- killed trainings


class Killed(Exception):
    """In the place of a signal."""


def test_a_killed_training_goes_on_from_its_last_epoch_and_predicts_without_this_package(
    linked: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = linked()
    name = "nnUNetTrainer_consistency_3epochs_2its_seed1"
    first = new_trainer(made, name)
    first.save_every = 1
    start = first.on_train_epoch_start

    def killed_in_the_last() -> None:
        if first.current_epoch == 2:
            raise Killed
        start()

    first.on_train_epoch_start = killed_in_the_last
    with pytest.raises(Killed):
        first.run_training()
    teacher, student = copy.deepcopy(first.network.state_dict()), student_of(first)

    again = new_trainer(made, name, again=True)
    again.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    for key, value in teacher.items():
        assert torch.equal(again.network.state_dict()[key], value)
    for key, value in student_of(again).items():
        assert torch.equal(student[key], value)
    again.run_training()
    assert len(again.logger.local_logger.my_fantastic_logging["agreement"]) == 3
    ended = copy.deepcopy(again.network.state_dict()), student_of(again)

    shutil.rmtree(again.output_folder)
    undisturbed = new_trainer(made, name)
    undisturbed.run_training()
    for found, expected in zip(ended, (undisturbed.network.state_dict(), student_of(undisturbed)), strict=True):
        for key, value in expected.items():
            assert torch.equal(found[key], value), key

    monkeypatch.delenv("nnUNet_extTrainer")
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(made.model(name)), (0,), "checkpoint_final.pth")
    image = torch.randn(1, 1, 40, 40)
    again.set_deep_supervision_enabled(False)
    again.network.eval()
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    with torch.inference_mode():
        patch = image[:, :, :32, :32]
        torch.testing.assert_close(predictor.network.eval()(patch), again.network(patch))

    where = ["-i", str(made.unlabelled), "-o", str(made.root / "next"), "-device", "cpu"]
    assert main(["suggest", str(made.model(name)), *where, "-n", "2"]) == 0
    heading, *rows = (made.root / "next/suggestions.csv").read_text().splitlines()
    column = heading.split(",").index("teacher_student")
    assert [float(row.split(",")[column]) > 0 for row in rows] == [True, True]


# --- what disturbs a training; stock nnU-Net's trainer alone does not see to it


def ends_with(capsys: pytest.CaptureFixture[str], act: Callable[[], object]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        act()
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_second_process_and_a_full_disk_are_told(
    linked: Callable[..., TinyDataSet], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(linked(), "nnUNetTrainer_consistency_1epochs_2its")
    with alone(Path(trainer.output_folder) / ".lock", "it", "wait"):
        assert "another process is at work on the training in" in ends_with(capsys, trainer.run_training)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "file")

    trainer.train_step = full
    assert "is full; nothing is lost: make room and give the same command again, with --c" in ends_with(
        capsys, trainer.run_training
    )


@pytest.mark.parametrize("name", ["nnUNetTrainer_consistency_1epochs_2its", "InfNetTrainer_1epochs_2its"])
def test_checkpoints_that_cannot_be_gone_on_from_are_told(
    name: str, linked: Callable[..., TinyDataSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, file = linked(), tmp_path / "checkpoint.pth"
    trainer = new_trainer(made, name)
    trainer.initialize()
    trainer.on_train_start()
    trainer.save_checkpoint(str(file))
    content = torch.load(file, weights_only=False)
    key = next(key for key, value in content["network_weights"].items() if value.ndim == 4)
    content["network_weights"][key] = torch.zeros(3, 3, 1, 1)
    torch.save(content, tmp_path / "other.pth")
    file.write_bytes(file.read_bytes()[:-20])
    for path, why in ((tmp_path / "other.pth", "it is of another network"), (file, "")):
        again = new_trainer(made, name, again=True)
        said = ends_with(capsys, functools.partial(again.load_checkpoint, str(path)))
        assert f"{path} cannot be gone on from ({why}" in said


@pytest.mark.parametrize(
    ("attributes", "name"),
    [("eta = 0.9\n    copy_paste = True", "UNetPretrainedScratchTrainer"), ("enlargement = 2", "OwnTrainer")],
)
def test_a_class_of_ones_own_predicts_the_network_that_it_trained(
    attributes: str, name: str, linked: Callable[..., TinyDataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = linked()
    (tmp_path / "own").mkdir()
    base = "UNetPretrainedScratchTrainer_consistency"
    text = f"from nnunet_covid.trainers import {base}\n\n\nclass OwnTrainer({base}):\n    {attributes}\n"
    (tmp_path / "own" / f"module_of_{name}.py").write_text(text)
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path / 'own'}{os.pathsep}{TRAINERS_FOLDER}")
    found_by_nnunet.cache_clear()
    trainer_of_length.cache_clear()
    trainer = new_trainer(made, recursive_find_trainer_class_by_name("OwnTrainer_1epochs_1its_seed1"))
    trainer.run_training()
    trained = Path(trainer.output_folder)
    assert torch.load(trained / "checkpoint_final.pth", weights_only=False)["trainer_name"] == name
    assert main(["link", "-d", "940", "-p", "testPlans", "--remove"]) == 0
    shutil.rmtree(made.unlabelled)
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(trained.parent), (0,))
    image = torch.rand(1, 1, *trainer.configuration_manager.patch_size)
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        torch.testing.assert_close(predictor.network.eval()(image), trainer.network.eval()(image), atol=1e-4, rtol=0)


# --- refusals


def refused(capsys: pytest.CaptureFixture[str], made: TinyDataSet, kind: type | str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        new_trainer(made, kind)
    assert stop.value.code == 2
    assert list((made.root / "nnUNet_results").iterdir()) == []
    error = capsys.readouterr().err
    line = error[error.index("error: ") :]
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"eta": 1.5}, "eta = 1.5, but it must lie between 0 and 1"),
        ({"eta": {"infection": 0.9}}, "eta = {'infection': 0.9}, but it must lie between 0 and 1"),
        ({"class_eta": 0.9}, "class_eta = 0.9, but it gives each class its own"),
        ({"class_eta": {"infection": -0.1}}, "class_eta of infection = -0.1"),
        ({"class_eta": {"tumour": 0.5}}, "the classes are background, infection"),
        ({"unlabelled_weight": -1.0}, "a weight must not be negative"),
        ({"unlabelled_weight": math.nan}, "a weight must not be negative"),
        ({"unlabelled_ratio": math.inf}, "a ratio must be positive, and both finite"),
        ({"teacher_decay": (0.99, 1.0)}, "teacher_decay = (0.99, 1.0)"),
        ({"teacher_decay": 1}, "teacher_decay = 1, but"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], expected: str, linked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = variant("nnUNetTrainer_consistency", **settings)
    assert expected in refused(capsys, linked(), kind)


def test_a_validation_or_test_image_among_the_unlabelled_ones_is_refused_or_left_out(
    linked: Callable[..., TinyDataSet], capsys: pytest.CaptureFixture[str]
) -> None:
    made = linked()
    copies = {"of_training": "imagesTr/case_0", "of_validation": "imagesTr/case_4", "of_test": "imagesTs/test_0"}
    for name, source in copies.items():
        shutil.copy(made.raw / f"{source}_0000.png", made.unlabelled / f"{name}_0000.png")
    assert link(made) == 0
    error = refused(capsys, made, "nnUNetTrainer_consistency")
    assert "2 unlabelled image(s) are validation or test images" in error
    assert "of_test = imagesTs/test_0, of_validation = imagesTr/case_4" in error
    assert "nnunet-covid link" in error
    trainer = new_trainer(made, variant("nnUNetTrainer_consistency", leave_out_known=True))
    assert trainer.unlabelled_images.cases == ("of_training", "un_0", "un_1", "un_2")
    (made.raw / "imagesTr/case_5_0000.png").unlink()
    capsys.readouterr()
    new_trainer(made, variant("nnUNetTrainer_consistency", leave_out_known=True))
    assert "nnUNet_raw lacks 1 image(s), with which none was compared: imagesTr/case_5" in capsys.readouterr().out


def test_the_data_sets_own_images_are_unlabelled_ones_of_folds_that_do_not_validate_on_them(
    linked: Callable[..., TinyDataSet],
) -> None:
    """A fold of few labels has the other images without their labels; each leaves out what it validates on."""
    made = linked()
    folds = [
        {"train": ["case_0"], "val": ["case_4", "case_5"]},
        {"train": ["case_2"], "val": ["case_0", "case_1"]},
    ]
    (made.preprocessed / "splits_final.json").write_text(json.dumps(folds))
    assert link(made, made.raw / "imagesTr") == 0
    kind = variant("nnUNetTrainer_consistency")
    for fold, left in ((0, (0, 1, 2, 3)), (1, (2, 3, 4, 5))):
        trainer = new_trainer(made, kind, fold=fold)
        assert trainer.unlabelled_images.cases == tuple(f"case_{i}" for i in left)


RELATIONS = ("CollaborativeTrainerNoGeneralLoss", "CollaborativeTrainerNoGeneralLoss_consistency")


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("known_folds", [True, False], ids=["folds", "folds made by nnU-Net"])
def test_relation_losses_see_no_validation_or_test_image(
    name: str, linked: Callable[..., TinyDataSet], *, known_folds: bool
) -> None:
    made = linked()
    for case in ("test_0", "test_1"):
        shutil.copy(made.raw / "imagesTs/test_0_0000.png", made.raw / f"imagesTr/{case}_0000.png")
    assert link(made, made.raw / "imagesTr") == 0
    if not known_folds:
        (made.preprocessed / "splits_final.json").unlink()
    trainer = new_trainer(made, name)
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    seen = {Path(case).name for case in training.beside["unlabelled"].data_loader._data.identifiers}
    kept_out = set(validation.data_loader._data.identifiers)
    assert seen == {f"case_{i}" for i in range(6)} - kept_out
    assert kept_out


def test_relation_losses_refuse_known_images_and_are_content_with_one(
    linked: Callable[..., TinyDataSet], capsys: pytest.CaptureFixture[str]
) -> None:
    made = linked()
    name = "CollaborativeTrainerNoGeneralLoss"
    shutil.copy(made.raw / "imagesTr/case_4_0000.png", made.unlabelled / "copy_0000.png")
    for left in (2, 1):
        (made.unlabelled / f"un_{left}_0000.png").unlink()
    assert link(made) == 0
    assert "1 unlabelled image(s) are validation or test images (copy = imagesTr/case_4)" in refused(capsys, made, name)
    kind = variant(name, leave_out_known=True)
    assert new_trainer(made, kind).unlabelled_images.cases == ("un_0",)
    (made.unlabelled / "un_0_0000.png").unlink()
    shutil.rmtree(made.root / "nnUNet_results/Dataset940_Tiny")
    assert link(made) == 0
    assert "no unlabelled image of" in refused(capsys, made, kind)
